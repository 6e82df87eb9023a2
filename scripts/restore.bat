@echo off
rem Brings a backup back. Arguments go to `fingers restore`; paths start at the repository.
setlocal DisableDelayedExpansion
cd /d "%~dp0.."
.\run.bat fingers restore %*

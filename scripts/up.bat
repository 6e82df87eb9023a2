@echo off
rem Starts the servers of this machine. Arguments go to `fingers up`.
setlocal DisableDelayedExpansion
cd /d "%~dp0.."
.\run.bat fingers up %*

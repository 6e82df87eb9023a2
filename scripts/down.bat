@echo off
rem Stops the servers of this machine; what they hold stays. Arguments go to `fingers down`.
setlocal DisableDelayedExpansion
cd /d "%~dp0.."
.\run.bat fingers down %*

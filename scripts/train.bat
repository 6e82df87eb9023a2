@echo off
rem Starts the servers of this machine, then runs every stage. Arguments go to `dvc repro`.
setlocal DisableDelayedExpansion
cd /d "%~dp0.."
call .\run.bat fingers up
if %errorlevel% neq 0 exit /b %errorlevel%
.\run.bat dvc repro %*

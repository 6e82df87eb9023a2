@echo off
rem Tests what serving needs, prints the addresses, then serves. Arguments go to `fingers serve`.
setlocal DisableDelayedExpansion
cd /d "%~dp0.."
call .\run.bat fingers doctor python disk .env model
if %errorlevel% neq 0 exit /b %errorlevel%
call .\run.bat python scripts/addresses.py %*
if %errorlevel% neq 0 exit /b %errorlevel%
.\run.bat fingers serve %*

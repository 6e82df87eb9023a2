@echo off
rem Backs up all that MLflow holds. Arguments go to `fingers backup`; paths start at the repository.
setlocal DisableDelayedExpansion
cd /d "%~dp0.."
.\run.bat fingers backup %*

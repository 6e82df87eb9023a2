@echo off
rem Brings .venv in step with requirements.lock, reads .env, then executes the arguments in that environment.
rem   run dvc repro          run test --all
setlocal DisableDelayedExpansion
set "root=%~dp0"
if "%~1"=="" (
  echo run: say what to run, for example: run dvc repro, or run test 1>&2
  exit /b 1
)

fc /b "%root%requirements.lock" "%root%.venv\in-step\requirements.lock" >nul 2>nul || goto setup
fc /b "%root%pyproject.toml" "%root%.venv\in-step\pyproject.toml" >nul 2>nul || goto setup
goto ready

:setup
where git >nul 2>nul
if errorlevel 1 (
  echo run: git is not installed; DVC needs it: winget install Git.Git 1>&2
  exit /b 1
)
if not defined PYTHON set "PYTHON=python"
"%PYTHON%" -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>nul
if errorlevel 1 (
  echo run: no Python 3.11 or newer found; winget install Python.Python.3.13, or set PYTHON to its path 1>&2
  exit /b 1
)
"%PYTHON%" "%root%scripts\setup_venv.py"
if errorlevel 1 exit /b 1

:ready
if exist "%root%.env" for /f "usebackq eol=# tokens=1,* delims==" %%a in ("%root%.env") do if not defined %%a set "%%a=%%b"
set "VIRTUAL_ENV=%root%.venv"
set "PATH=%root%.venv\Scripts;%PATH%"
if /i not "%~1"=="test" goto execute
cd /d "%root%"
python -m tests %*
exit /b %errorlevel%

:execute
%*
exit /b %errorlevel%

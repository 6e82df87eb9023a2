# Backs up all that MLflow holds. Arguments go to `fingers backup`; paths start at the repository.
Push-Location (Join-Path $PSScriptRoot '..')
try {
    ./run.bat fingers backup @args
    exit $LASTEXITCODE
} finally {
    Pop-Location
}

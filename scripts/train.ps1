# Starts the servers of this machine, then runs every stage. Arguments go to `dvc repro`.
Push-Location (Join-Path $PSScriptRoot '..')
try {
    ./run.bat fingers up
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
    ./run.bat dvc repro @args
    exit $LASTEXITCODE
} finally {
    Pop-Location
}

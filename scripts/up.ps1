# Starts the servers of this machine. Arguments go to `fingers up`.
Push-Location (Join-Path $PSScriptRoot '..')
try {
    ./run.bat fingers up @args
    exit $LASTEXITCODE
} finally {
    Pop-Location
}

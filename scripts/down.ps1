# Stops the servers of this machine; what they hold stays. Arguments go to `fingers down`.
Push-Location (Join-Path $PSScriptRoot '..')
try {
    ./run.bat fingers down @args
    exit $LASTEXITCODE
} finally {
    Pop-Location
}

# Brings a backup back. Arguments go to `fingers restore`; paths start at the repository.
Push-Location (Join-Path $PSScriptRoot '..')
try {
    ./run.bat fingers restore @args
    exit $LASTEXITCODE
} finally {
    Pop-Location
}

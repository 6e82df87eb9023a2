# Tests what serving needs, prints the addresses, then serves. Arguments go to `fingers serve`.
Push-Location (Join-Path $PSScriptRoot '..')
try {
    ./run.bat fingers doctor python disk .env model
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
    ./run.bat python scripts/addresses.py @args
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
    ./run.bat fingers serve @args
    exit $LASTEXITCODE
} finally {
    Pop-Location
}

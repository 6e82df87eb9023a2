#!/bin/sh
# Names and addresses -> a certificate for them that lasts 90 days and that nobody vouches for: a browser will say so.
#   deploy/nginx/trial_certificate.sh                       # localhost
#   deploy/nginx/trial_certificate.sh fingers.example.org 192.168.1.20
# It lies where compose.yaml looks for one; put a real certificate.pem (with its chain) and key.pem there instead.
set -eu
secrets=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/secrets
folder=$secrets/certificates
fail() { printf 'trial_certificate.sh: %s\n' "$1" >&2; exit 1; }

command -v openssl >/dev/null || fail "openssl is not installed (Debian: apt install openssl)"
[ ! -e "$folder/certificate.pem" ] && [ ! -e "$folder/key.pem" ] || fail "$folder: there is one already; remove it first"
[ $# -gt 0 ] || set -- localhost 127.0.0.1
first=$1
names=
for name; do
  case $name in
    *[!0-9.]*) case $name in *:*) kind=IP ;; *) kind=DNS ;; esac ;;
    *) kind=IP ;;
  esac
  names=$names${names:+,}$kind:$name
done

# nginx runs as another user and reads the key as it lies there; the folder above keeps everybody else out.
mkdir -p "$folder"
chmod 700 "$secrets"
chmod 755 "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \
  -subj "/CN=$first" -addext "subjectAltName=$names" -addext "basicConstraints=critical,CA:FALSE" \
  -addext "extendedKeyUsage=serverAuth" -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null || {
  rm -f "$folder/key.pem" "$folder/certificate.pem"
  fail "openssl takes no certificate for $names"
}
chmod 444 "$folder/key.pem" "$folder/certificate.pem"
printf '%s: for %s, 90 days\n' "$folder/certificate.pem" "$names" >&2

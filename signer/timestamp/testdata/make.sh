#!/bin/sh
# Makes the stored tokens of the tests anew, with throw-away keys: run it in this
# folder. It needs OpenSSL 3.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
printf 'what was there\n' >"$tmp/document"
cat >"$tmp/cnf" <<END
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[leaf]
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[t]
serial = $tmp/serial
default_policy = 1.3.6.1.4.1.99999.1
digests = sha256
accuracy = secs:1, millisecs:500, microsecs:100
clock_precision_digits = 3
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
END
openssl req -x509 -config "$tmp/cnf" -extensions ca -newkey rsa:2048 -nodes -keyout "$tmp/ca.key" -subj "/O=Test/CN=Stored test CA" -days 20000 -out ca.pem 2>/dev/null
leaf() { # name, key options
	name=$1
	shift
	openssl req -config "$tmp/cnf" -newkey "$@" -nodes -keyout "$tmp/$name.key" -subj "/O=Test/CN=Stored test TSA $name" -out "$tmp/csr" 2>/dev/null
	openssl x509 -req -in "$tmp/csr" -CA ca.pem -CAkey "$tmp/ca.key" -extfile "$tmp/cnf" -extensions leaf -days 19000 -out "$tmp/$name.pem" 2>/dev/null
}
leaf rsa rsa:2048
leaf short rsa:1024
leaf ec ec -pkeyopt ec_paramgen_curve:P-384
token() { # name, certificate, digest, digest of the reference to the certificate
	echo 01 >"$tmp/serial"
	{ cat "$tmp/cnf"; echo "ess_cert_id_alg = $4"; } >"$tmp/ts"
	openssl ts -query -data "$tmp/document" -sha256 -cert -out "$tmp/query"
	openssl ts -reply -config "$tmp/ts" -section t -queryfile "$tmp/query" -signer "$tmp/$2.pem" -inkey "$tmp/$2.key" -chain ca.pem "-$3" -token_out -out "$1.tst" 2>/dev/null
}
token rsa rsa sha256 sha256
token ess1 rsa sha256 sha1
token sha512 rsa sha512 sha512
token ec ec sha384 sha384
token sha1 rsa sha1 sha256
token short short sha256 sha256
openssl ts -reply -config "$tmp/ts" -section t -queryfile "$tmp/query" -signer "$tmp/rsa.pem" -inkey "$tmp/rsa.key" -sha256 -out granted.tsr 2>/dev/null
openssl ts -query -data "$tmp/document" -sha512 -cert -out "$tmp/query"
openssl ts -reply -config "$tmp/ts" -section t -queryfile "$tmp/query" -signer "$tmp/rsa.pem" -inkey "$tmp/rsa.key" -sha256 -out rejected.tsr 2>/dev/null

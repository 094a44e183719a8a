// Package installation has the test of pecd's packages on a fresh Debian: make
// test-install. It makes a Debian 12 of its own in a temporary folder, and runs in it
// the distribution's Postfix, or its Sendmail, and Dovecot, in namespaces without a network.
package installation

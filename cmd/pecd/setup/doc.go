// Package setup reads the configuration of a Postfix or Sendmail that runs, plans what
// must change so that it works with pecd (docs/postfix.md, docs/sendmail.md), shows the
// changes as a diff with their reasons, makes them with a backup, and takes them back.
// It also writes the first configuration of an installation.
//
// Of Postfix's files it writes by postconf(1) only, on a copy that takes the place of
// the real files at once; of Sendmail's, sendmail.mc and the tables, of which m4 and
// makemap(8) make the rest. It refuses to go on where it does not understand what it
// reads, and puts everything back where the mail server does not like the result.
package setup

import "errors"

var (
	// ErrPostfix wraps what Postfix's own commands complain of.
	ErrPostfix = errors.New("postfix")
	// ErrInstances says that several Postfix instances are configured and none was
	// chosen.
	ErrInstances = errors.New("several Postfix instances are configured")
	// ErrRemote says that pecd hands signed messages in from another machine, and that no
	// listener was written for it by hand.
	ErrRemote = errors.New("courier.mta is not an address of this machine")
	// ErrSenders says that Postfix is to hold users to addresses of their own, and has
	// nothing to look them up in.
	ErrSenders = errors.New("no table says who may send as whom")
	// ErrPartial says that a table must be written anew, and that not all that belongs in
	// it is known.
	ErrPartial = errors.New("the directory of providers cannot be had, and without it a table of pecd's cannot be written anew")
	// ErrNothing says that there is nothing to take back.
	ErrNothing = errors.New("nothing to take back: pecd setup has changed nothing here")
	// ErrMeanwhile says that somebody has changed a file since it was read.
	ErrMeanwhile = errors.New("was changed meanwhile; run this again")
	// ErrExists says that there is an installation already.
	ErrExists = errors.New("exists already")
)

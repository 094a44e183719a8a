// Package stage builds and runs a small world of certified mail on 127.0.0.1:
// two providers, Alfa and Beta, each with a private Postfix, a private Dovecot
// and pecd, and an ordinary mail server beside them. The demo shows it and the
// whole-system tests stand on it.
//
// It refuses to touch anything outside its own directory: not the system's
// Postfix or Dovecot, no DNS, no user accounts. All keys are made anew and
// thrown away with the directory. It needs root, since Postfix and Dovecot
// change to their own users; see New.
//
// A test uses it like this:
//
//	s, err := stage.New(ctx, stage.Options{Dir: t.TempDir(), PecdBinary: bin, Log: os.Stderr})
//	t.Cleanup(func() { s.Remove(context.Background()) })
//	err = s.Start(ctx)
//	reply, err := s.Submit(ctx, "alice@alfa.example", "alice@alfa.example", []string{"bob@beta.example"}, raw)
//	mails, err := s.WaitMail(ctx, "bob@beta.example", stage.Count(1))
//
// pecd can be killed and started again with other circumstances:
//
//	p := s.Alfa.Pecd
//	p.Env = []string{"PECD_TEST=1"}
//	err = p.Start(ctx)
//	err = p.Kill()
package stage

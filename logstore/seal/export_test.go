package seal

// AtStep lets s fail at a step, as a crash would stop it there.
func (s *Sealer) AtStep(f func(string) error) { s.step = f }

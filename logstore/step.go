package logstore

// A Step names a point in the commit, in the taking of a message by the MTA, or
// in a purge of the virus store, where a crash may come. Tests and fault drills stop the process there.
type Step string

// The steps of Commit, in their order.
const (
	StepPrepared   Step = "commit-prepared"    // bodies and infected messages are in temporary files
	StepSynced     Step = "commit-synced"      // their bytes are on stable storage
	StepNamed      Step = "commit-named"       // they have their names
	StepNameSynced Step = "commit-name-synced" // and the names are on stable storage
	StepBegun      Step = "commit-begun"       // the SQL transaction is open
	StepWritten    Step = "commit-written"     // all rows are in it
	StepCommitted  Step = "commit-committed"   // it is on stable storage, nobody knows yet
	StepSettled    Step = "commit-settled"     // the courier has been woken, the caller is about to hear
)

// The steps of Taken, in their order.
const (
	StepTakeBegun     Step = "take-begun"     // the SQL transaction is open
	StepTakeWritten   Step = "take-written"   // the rows are gone in it
	StepTakeCommitted Step = "take-committed" // it is on stable storage, files are still there
	StepTakeSettled   Step = "take-settled"   // the files are gone
)

// Steps returns all steps on the way of a message, in their order; PurgeSteps are
// the others.
func Steps() []Step {
	return []Step{
		StepPrepared, StepSynced, StepNamed, StepNameSynced, StepBegun, StepWritten, StepCommitted, StepSettled,
		StepTakeBegun, StepTakeWritten, StepTakeCommitted, StepTakeSettled,
	}
}

// around does what leads to step, or has whoever breaks things on purpose do it.
func (s *SQLite) around(step Step, do func() error) error {
	if s.options.Around == nil || step == "" {
		return do()
	}
	return s.options.Around(step, do)
}

// at tells whoever drills faults that the process is at step.
func (s *SQLite) at(step Step) {
	if s.options.AtStep != nil && step != "" {
		s.options.AtStep(step)
	}
}

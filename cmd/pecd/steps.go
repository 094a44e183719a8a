package main

import "pecd/logstore"

// Steps of a message's way at the doors, for fault drills: a build with the tag
// faultdrill can end the process at any of them.
const (
	stepAccepted      = "door.accepted"        // committed, the MTA has not heard yet
	stepTakenInCharge = "door.taken-in-charge" // take-charge committed, the store not asked yet
	stepStored        = "door.stored"          // the store has the message, no receipt committed yet
	stepArrived       = "door.arrived"         // all committed, the MTA has not heard yet
)

func storeStep(s logstore.Step) { atStep(string(s)) }

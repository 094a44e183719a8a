//go:build !faultdrill

package main

// atStep does nothing in a build for use.
func atStep(string) {}

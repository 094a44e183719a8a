package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// compilers are the C compilers by architecture, as Go calls it. On the machine
// itself it is cc.
var compilers = map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}

// plugins are those that are shipped, each in a package of its own.
var plugins = []string{"attachments", "clamav", "limits"}

// programs builds what the packages carry into bin, and for the manual a pecd
// that runs here.
func (j *job) programs(ctx context.Context) error {
	cc, err := compiler(j.arch)
	if err != nil {
		return err
	}
	if err := j.build(ctx, j.arch, cc, j.bin("pecd"), "./cmd/pecd"); err != nil {
		return err
	}
	for _, p := range plugins {
		if err := j.build(ctx, j.arch, cc, j.bin(p), "./plugins/"+p); err != nil {
			return err
		}
	}
	if j.arch == runtime.GOARCH {
		return nil
	}
	cc, err = compiler(runtime.GOARCH)
	if err != nil {
		return err
	}
	return j.build(ctx, runtime.GOARCH, cc, j.tool(), "./cmd/pecd")
}

func (j *job) bin(name string) string { return filepath.Join(j.work, "bin", name) }

// tool is the pecd that writes the manual.
func (j *job) tool() string {
	if j.arch == runtime.GOARCH {
		return j.bin("pecd")
	}
	return filepath.Join(j.work, "tool", "pecd")
}

// compiler is the C compiler for an architecture.
func compiler(arch string) (string, error) {
	cc, ok := compilers[arch]
	switch {
	case !ok:
		return "", fmt.Errorf("there is no recipe for %s: amd64 and arm64 only", arch)
	case arch == runtime.GOARCH:
		cc = "cc"
	}
	if _, err := exec.LookPath(cc); err != nil {
		return "", fmt.Errorf("packages for %s need %s; on Debian: apt-get install gcc libc6-dev, or for arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross", arch, cc)
	}
	return cc, nil
}

// build makes a program that is position independent, linked dynamically and
// stripped, and the same wherever it is built.
func (j *job) build(ctx context.Context, arch, cc, out, pkg string) error {
	env := []string{"CGO_ENABLED=1", "GOOS=linux", "GOARCH=" + arch, "CC=" + cc, "GOFLAGS=",
		"CGO_CFLAGS=-O2 -g0 -fstack-protector-strong -D_FORTIFY_SOURCE=2"}
	ld := "-s -w -buildid= -linkmode=external -extldflags '-Wl,-z,relro,-z,now,--build-id=none' -X main.version=" + j.version
	cmd := j.golang(ctx, env, "build", "-trimpath", "-buildvcs=false", "-buildmode=pie", "-ldflags", ld, "-o", out, pkg)
	if b, err := cmd.Output(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, b)
	}
	return nil
}

// A glibc is a version of the C library: 2.N.
type glibc int

func (g glibc) String() string { return fmt.Sprintf("2.%d", int(g)) }

// needs is the C library that a program needs at least, from the versions of the
// symbols that it uses.
func needs(file string) (glibc, error) {
	f, err := elf.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	var most glibc
	for _, s := range symbols {
		v, ok := strings.CutPrefix(s.Version, "GLIBC_2.")
		if !ok {
			continue
		}
		minor, _, _ := strings.Cut(v, ".") // 2.2.5 is 2.2
		n, err := strconv.Atoi(minor)
		if err != nil {
			return 0, fmt.Errorf("%s: %s wants C library %s: %w", file, s.Name, s.Version, err)
		}
		most = max(most, glibc(n))
	}
	if most == 0 {
		return 0, fmt.Errorf("%s uses no C library", file)
	}
	return most, nil
}

package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// A link carries TCP connections from one server to another, and can be cut.
type link struct {
	l     net.Listener
	to    string
	mu    sync.Mutex
	cut   bool
	met   int // connections that were cut, or were not carried, since lost was asked
	conns map[net.Conn]struct{}
	ended sync.WaitGroup
}

func newLink() (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{l: l, conns: map[net.Conn]struct{}{}}
	k.ended.Add(1)
	go k.serve()
	return k, nil
}

func (k *link) addr() string { return k.l.Addr().String() }

func (k *link) serve() {
	defer k.ended.Done()
	for {
		c, err := k.l.Accept()
		if err != nil {
			return
		}
		k.ended.Add(1)
		go func() {
			defer k.ended.Done()
			k.carry(c)
		}()
	}
}

func (k *link) carry(c net.Conn) {
	defer c.Close()
	if !k.hold(c) {
		return
	}
	defer k.drop(c)
	d, err := net.DialTimeout("tcp", k.to, 5*time.Second)
	if err != nil {
		return
	}
	defer d.Close()
	if !k.hold(d) {
		return
	}
	defer k.drop(d)
	back := make(chan struct{})
	go func() {
		_, _ = io.Copy(c, d) // ends with either connection
		_ = c.Close()
		close(back)
	}()
	_, _ = io.Copy(d, c)
	_ = d.Close()
	<-back
}

func (k *link) hold(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cut {
		k.met++
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

func (k *link) drop(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}

// set cuts the link, with all connections in whatever state they are, or mends it.
func (k *link) set(cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
	if cut {
		k.met += len(k.conns)
		for c := range k.conns {
			_ = c.Close()
		}
	}
}

// lost is how many connections met a cut since it was asked last.
func (k *link) lost() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.met
	k.met = 0
	return n
}

func (k *link) close() {
	k.set(true)
	_ = k.l.Close()
	k.ended.Wait()
}

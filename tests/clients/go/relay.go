package main

import (
	"io"
	"net"
	"sync"
)

// relay forwards TCP connections and can break them all at once.
type relay struct {
	listener net.Listener
	target   string
	mutex    sync.Mutex
	open     map[net.Conn]struct{}
	// broken counts the connections that breakAll closed.
	broken int
}

func startRelay(target string) (*relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: listener, target: target, open: map[net.Conn]struct{}{}}
	go r.accept()
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) close() {
	r.listener.Close()
	r.breakAll()
}

func (r *relay) breakAll() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for conn := range r.open {
		conn.Close()
		r.broken++
	}
	r.open = map[net.Conn]struct{}{}
}

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.target)
		if err != nil {
			near.Close()
			continue
		}
		r.mutex.Lock()
		r.open[near] = struct{}{}
		r.mutex.Unlock()
		go r.pipe(near, far)
		go r.pipe(far, near)
	}
}

func (r *relay) pipe(to, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
	r.mutex.Lock()
	delete(r.open, to)
	delete(r.open, from)
	r.mutex.Unlock()
}

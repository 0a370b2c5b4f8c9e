package transparentllm_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy lies between a client and a server. It closes its connections once they carried as many bytes to the client as
// after says next.
type proxy struct {
	target   string
	listener net.Listener
	mutex    sync.Mutex
	after    []int64
	made     int
	carried  int64
	links    []net.Conn
}

func proxied(t *testing.T, target string, after ...int64) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	made := &proxy{target: target, listener: listener, after: after}
	t.Cleanup(made.close)
	go made.accept()
	return made
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) interruptNext(after ...int64) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.after, p.carried = append(p.after, after...), 0
}

func (p *proxy) interruptions() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.made
}

func (p *proxy) close() {
	p.listener.Close()
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, link := range p.links {
		link.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mutex.Lock()
		p.links = append(p.links, client, server)
		p.mutex.Unlock()
		go func() { io.Copy(server, client); server.Close() }()
		go func() { p.carry(client, server); client.Close(); server.Close() }()
	}
}

func (p *proxy) carry(client, server net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		count, err := server.Read(buffer)
		if err != nil {
			return
		}
		allowed, ends := p.allowed(int64(count))
		if _, err := client.Write(buffer[:allowed]); err != nil || ends {
			return
		}
	}
}

// allowed says how much of the next bytes may pass, and whether the connection ends then.
func (p *proxy) allowed(count int64) (int64, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if len(p.after) == 0 || p.carried+count <= p.after[0] {
		p.carried += count
		return count, false
	}
	rest := p.after[0] - p.carried
	p.after, p.carried = p.after[1:], 0
	p.made++
	return rest, true
}

// resetter lies between a client and a server as a proxy of calls does. It resets a stream after so many of its frames of
// data, when it is told to.
type resetter struct {
	target   string
	listener net.Listener
	left     atomic.Int64 // frames until then; below 0: none
}

func resetBetween(t *testing.T, target string) *resetter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	made := &resetter{target: target, listener: listener}
	made.left.Store(-1)
	t.Cleanup(func() { listener.Close() })
	go made.accept()
	return made
}

func (r *resetter) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			client.Close()
			continue
		}
		go func() { io.Copy(server, client); server.Close() }()
		go func() { r.carry(client, server); client.Close(); server.Close() }()
	}
}

// carry passes frames on (RFC 9113, 4.1): 3 bytes of length, type, flags, 4 bytes of stream, payload.
func (r *resetter) carry(client, server net.Conn) {
	for {
		frame := make([]byte, 9)
		if _, err := io.ReadFull(server, frame); err != nil {
			return
		}
		length := int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2])
		frame = append(frame, make([]byte, length)...)
		if _, err := io.ReadFull(server, frame[9:]); err != nil {
			return
		}
		if frame[3] == 0 && r.left.Add(-1) == 0 { // DATA
			reset := append([]byte{0, 0, 4, 3, 0}, frame[5:9]...)
			frame = append(frame, append(reset, 0, 0, 0, 2)...) // RST_STREAM, INTERNAL_ERROR
		}
		if _, err := client.Write(frame); err != nil {
			return
		}
	}
}

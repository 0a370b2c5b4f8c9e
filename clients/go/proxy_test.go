package transparentllm_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy lies between a client and a server. It closes its connections once they carried as many bytes to the client as
// cuts say next.
type proxy struct {
	target   string
	listener net.Listener
	mutex    sync.Mutex
	cuts     []int64
	made     int
	carried  int64
	links    []net.Conn
}

func proxied(t *testing.T, target string, cuts ...int64) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	made := &proxy{target: target, listener: listener, cuts: cuts}
	t.Cleanup(made.close)
	go made.accept()
	return made
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) cutNext(after ...int64) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.cuts, p.carried = append(p.cuts, after...), 0
}

func (p *proxy) cutsMade() int {
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
		allowed, cut := p.allowed(int64(count))
		if _, err := client.Write(buffer[:allowed]); err != nil || cut {
			return
		}
	}
}

// allowed says how much of the next bytes may pass, and whether the connection ends then.
func (p *proxy) allowed(count int64) (int64, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if len(p.cuts) == 0 || p.carried+count <= p.cuts[0] {
		p.carried += count
		return count, false
	}
	rest := p.cuts[0] - p.carried
	p.cuts, p.carried = p.cuts[1:], 0
	p.made++
	return rest, true
}

package testbed

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// Gate is the road from entrepot to a registry, or from a client to entrepot. It passes requests on and counts them,
// can be narrowed to a bandwidth, and can be closed, which to who comes by it is a server that is down.
type Gate struct {
	address string
	proxy   *httputil.ReverseProxy
	limit   *rate.Limiter

	mu sync.Mutex
	// guards following
	server   *http.Server // nil while closed
	seen     []Request
	inFlight int
	idle     chan struct{} // closed while inFlight is 0
}

// Request is one request that reached the gate, as far as it has got.
type Request struct {
	Method, Path string
	// Range is the header of that name, empty if there is none.
	Range string
	// Status is 0 until the registry has answered.
	Status int
	// Bytes of the answer's body that have gone through.
	Bytes int64
}

// maxBurst bounds what may pass at once, and so how long the limit makes one read wait.
const maxBurst = 1 << 20

// OpenGate opens a gate in front of r.
func (b *Bed) OpenGate(r *Registry) (*Gate, error) { return b.openGate(r.Address) }

// OpenClientsGate opens a gate in front of e, to see what a client asks of it.
func (b *Bed) OpenClientsGate(e *Entrepot) (*Gate, error) { return b.openGate(e.Address) }

func (b *Bed) openGate(server string) (*Gate, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	g := &Gate{address: address, limit: rate.NewLimiter(rate.Inf, maxBurst), idle: make(chan struct{})}
	close(g.idle)
	g.proxy = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: server})
		},
		ModifyResponse: g.onAnswer,
		// What passes must be what the registry sent, byte for byte.
		Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		// A client that leaves early, or a gate that closes, is part of the play.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	if err := g.Open(); err != nil {
		return nil, err
	}
	b.OnClose(g.Close)
	return g, nil
}

// Address is the gate's host and port; they stay the same over closing and opening.
func (g *Gate) Address() string { return g.address }

// URL is what entrepot is given as its upstream.
func (g *Gate) URL() string { return "http://" + g.address }

// Open opens the gate again after Close.
func (g *Gate) Open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != nil {
		return nil
	}
	l, err := net.Listen("tcp", g.address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: g}
	g.server = s
	go s.Serve(l) // returns when the gate closes
	return nil
}

// Close cuts all connections and refuses new ones.
func (g *Gate) Close() error {
	g.mu.Lock()
	s := g.server
	g.server = nil
	g.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Close()
}

// Limit narrows all answers together to so many bytes a second.
func (g *Gate) Limit(bytesPerSecond int) { g.limit.SetLimit(rate.Limit(bytesPerSecond)) }

// ServeHTTP counts a request and passes it on.
func (g *Gate) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	id := g.enter(req)
	defer g.leave()
	g.proxy.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), requestID{}, id)))
}

// requestID is the context key of a request's place in seen.
type requestID struct{}

func (g *Gate) enter(req *http.Request) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inFlight == 0 {
		g.idle = make(chan struct{})
	}
	g.inFlight++
	g.seen = append(g.seen, Request{Method: req.Method, Path: req.URL.RequestURI(), Range: req.Header.Get("Range")})
	return len(g.seen) - 1
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if g.inFlight == 0 {
		close(g.idle)
	}
}

func (g *Gate) onAnswer(resp *http.Response) error {
	id, ok := resp.Request.Context().Value(requestID{}).(int)
	if !ok {
		return errors.New("testbed: a request that did not enter by the gate")
	}
	g.mu.Lock()
	g.seen[id].Status = resp.StatusCode
	g.mu.Unlock()
	resp.Body = &countedBody{ReadCloser: resp.Body, ctx: resp.Request.Context(), gate: g, id: id}
	return nil
}

// countedBody counts and slows an answer's body.
type countedBody struct {
	io.ReadCloser
	ctx  context.Context
	gate *Gate
	id   int
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), maxBurst)])
	if n > 0 {
		if werr := b.gate.limit.WaitN(b.ctx, n); werr != nil {
			return 0, werr
		}
		b.gate.mu.Lock()
		b.gate.seen[b.id].Bytes += int64(n)
		b.gate.mu.Unlock()
	}
	return n, err
}

// Mark waits until no request is under way and returns the place up to which requests have been seen, for [Gate.Since].
func (g *Gate) Mark(ctx context.Context) (int, error) {
	for {
		g.mu.Lock()
		idle, n, busy := g.idle, len(g.seen), g.inFlight > 0
		g.mu.Unlock()
		if !busy {
			return n, nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Since returns what came through after mark.
func (g *Gate) Since(mark int) Traffic {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append(Traffic(nil), g.seen[mark:]...)
}

// Traffic is a run of requests.
type Traffic []Request

// Bytes is the sum of the bodies.
func (t Traffic) Bytes() int64 {
	var n int64
	for _, r := range t {
		n += r.Bytes
	}
	return n
}

// Content returns the GETs of manifests and blobs: what a warm cache must not need.
func (t Traffic) Content() Traffic {
	var content Traffic
	for _, r := range t {
		if r.Method == http.MethodGet && (strings.Contains(r.Path, "/manifests/") || strings.Contains(r.Path, "/blobs/")) {
			content = append(content, r)
		}
	}
	return content
}

// Of returns the requests whose path contains part.
func (t Traffic) Of(part string) Traffic {
	var some Traffic
	for _, r := range t {
		if strings.Contains(r.Path, part) {
			some = append(some, r)
		}
	}
	return some
}

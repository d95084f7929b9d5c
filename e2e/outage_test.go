package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// An upstream that swallows all that is sent to it, by every client's measure: what is kept is served at once, what is not is refused at
// once, few connections find out, and one probe notices that it is back.
func TestPromiseUpstreamThatSwallowsPackets(t *testing.T) {
	needRoot(t)
	need(t, "ip", "podman", "conmon")
	island, err := bed.OpenIsland(running)
	if err != nil {
		t.Fatal(err)
	}
	l, err := island.Listen()
	if err != nil {
		t.Fatal(err)
	}
	swallow := func(on bool) {
		t.Helper()
		if err := island.Swallow(running, on); err != nil {
			t.Fatal(err)
		}
	}
	o := newOutage(t, l)
	s := steps{t: t, client: newPodman(t, o.entrepot.Address)}
	o.warm(s)
	swallow(true)
	island.Attempts()
	o.refusesCrowd()
	if n := island.Attempts(); n < 1 || n > atOnce+1 { // one for a probe
		t.Errorf("200 clients cost %d attempts to connect", n)
	}
	o.servesWarm(s)
	o.comesBack(s, func() { swallow(false) })
}

// An upstream that takes connections and requests, and never answers.
func TestPromiseUpstreamThatNeverAnswers(t *testing.T) {
	needRoot(t)
	need(t, "dockerd", "docker", "containerd", "ctr", "runc")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := newOutage(t, l)
	s := steps{t: t, client: newDocker(t, o.entrepot.Address)}
	o.warm(s)
	o.hush.Store(true)
	before := o.opened.Load()
	o.refusesCrowd()
	if n := o.opened.Load() - before; n < 1 || n > atOnce+1 { // one for a probe
		t.Errorf("200 clients cost %d connections", n)
	}
	o.servesWarm(s)
	o.comesBack(s, func() { o.hush.Store(false) })
}

// atOnce is how many requests wait for who may not be there.
const atOnce = 8

// outage is an entrepot before a registry that goes away.
type outage struct {
	t        *testing.T
	entrepot *testbed.Entrepot
	gate     *testbed.Gate
	hush     atomic.Bool  // whether requests get no answer
	opened   atomic.Int64 // connections
}

// newOutage starts an entrepot whose tags are stale at once, before a registry that is behind a listener.
func newOutage(t *testing.T, l net.Listener) *outage {
	gate, err := bed.OpenGate(open)
	if err != nil {
		t.Fatal(err)
	}
	o := &outage{t: t, gate: gate}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if o.hush.Load() {
				<-req.Context().Done()
				return
			}
			gate.ServeHTTP(w, req)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				o.opened.Add(1)
			}
		},
	}
	var served sync.WaitGroup
	served.Go(func() { server.Serve(l) }) // returns when it is closed
	t.Cleanup(func() {
		server.Close()
		served.Wait()
	})
	o.entrepot = startEntrepot(t, testbed.EntrepotOptions{
		Config: configuration("http://"+l.Addr().String()) + "cache: {tag_ttl: 1ms, read_ahead: off}\n",
		Env:    []string{"HTTP_PROXY=", "http_proxy="},
	})
	return o
}

// warm has an image pulled, and starts entrepot over: it does not know then that upstream was there a moment ago.
func (o *outage) warm(s steps) {
	o.t.Helper()
	s.pull("cold", images.index, images.index.ByTag(), native)
	p, err := testbed.Pull(running, o.entrepot.URL(), images.index.Repository, images.index.Tag, native)
	if err != nil {
		o.t.Fatal(err)
	}
	if err := o.entrepot.Kept(running, p); err != nil {
		o.t.Fatal(err)
	}
	if err := o.entrepot.Stop(); err != nil {
		o.t.Fatal(err)
	}
	if err := o.entrepot.Start(running); err != nil {
		o.t.Fatal(err)
	}
}

// refusesCrowd has 200 clients ask for what is not there, twice: nobody is told that there is no such thing.
func (o *outage) refusesCrowd() {
	o.t.Helper()
	for round := range 2 {
		asked := o.asked()
		var crowd sync.WaitGroup
		for n := range 200 {
			crowd.Go(func() {
				path := fmt.Sprintf("%s/v2/library/hello/manifests/unknown-%d-%d", o.entrepot.URL(), round, n)
				resp, err := http.Get(path)
				if err != nil {
					o.t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
					o.t.Errorf("%s, again after %q", resp.Status, resp.Header.Get("Retry-After"))
				}
			})
		}
		crowd.Wait()
		switch n := o.asked() - asked; {
		case round == 0 && (n < 1 || n > atOnce):
			o.t.Errorf("%v requests found out that upstream is gone", n)
		case round == 1 && n != 0:
			o.t.Errorf("%v requests though it was known", n)
		}
	}
}

// servesWarm pulls what is kept, of which nobody is asked.
func (o *outage) servesWarm(s steps) {
	o.t.Helper()
	asked := o.asked()
	for range 5 {
		p, err := testbed.Pull(running, o.entrepot.URL(), images.index.Repository, images.index.Tag, native)
		if err != nil {
			o.t.Fatal(err)
		}
		for n, a := range p.Answers {
			if stale := strings.HasSuffix(a.Verdict(), "detail=stale"); !strings.HasPrefix(a.Verdict(), "hit") || stale != (n == 0) {
				o.t.Errorf("%s: %s", a.Path, a.Verdict())
			}
		}
	}
	s.fresh()
	s.pull("during the outage", images.index, images.index.ByTag(), native)
	if n := o.asked() - asked; n != 0 {
		o.t.Errorf("warm pulls cost %v requests", n)
	}
}

// comesBack mends upstream and waits until it is noticed, which takes no client's request.
func (o *outage) comesBack(s steps, mend func()) {
	o.t.Helper()
	mark, err := o.gate.Mark(running)
	if err != nil {
		o.t.Fatal(err)
	}
	mend()
	err = testbed.Until(running, "the recovery to be noticed", func(ctx context.Context) error {
		m, err := o.entrepot.Metrics(ctx)
		if err == nil && m.Of("entrepot_endpoint_up").Sum() != 1 {
			err = fmt.Errorf("endpoints that are up: %v", m.Of("entrepot_endpoint_up"))
		}
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	probes := o.gate.Since(mark)
	if len(probes) != 1 || probes[0].Path != "/v2/" {
		o.t.Errorf("noticed by %v", probes)
	}
	s.pull("after the outage", images.docker, images.docker.ByTag(), native)
}

// asked is how many requests entrepot has made, but for probes.
func (o *outage) asked() float64 {
	o.t.Helper()
	m, err := o.entrepot.Metrics(running)
	if err != nil {
		o.t.Fatal(err)
	}
	var sum float64
	for labels, n := range m.Of("entrepot_upstream_requests_total") {
		if !strings.Contains(labels, `kind="probe"`) {
			sum += n
		}
	}
	return sum
}

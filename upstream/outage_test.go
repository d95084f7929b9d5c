package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// outage is a registry that can be made to disappear.
type outage struct {
	*world
	*Registry
	dials   atomic.Int64
	swallow atomic.Bool // what is sent to open a connection: nobody answers
	hush    atomic.Bool // connections are taken, and nobody answers
	heard   atomic.Int64
	probed  atomic.Int64
}

func newOutage(t *testing.T, o Options) *outage {
	out := &outage{world: newWorld(t)}
	out.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v2/" {
			out.probed.Add(1)
		} else {
			out.heard.Add(1)
		}
		if out.hush.Load() {
			silent(rw, req)
			return
		}
		parted(serveLayer, serveContent)(rw, req)
	})
	out.by = func(ctx context.Context, network, addr string) (net.Conn, error) {
		out.dials.Add(1)
		if out.swallow.Load() {
			pause(ctx, 5*time.Second)
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrDeadlineExceeded}
		}
		return out.dial(ctx, network, addr)
	}
	out.Registry = out.registry(o, "http://registry.test")
	return out
}

// crowd asks for so many tags at once, and returns the errors.
func (out *outage) crowd(ctx context.Context, n int) []error {
	errs := make([]error, n)
	var asking sync.WaitGroup
	for i := range n {
		asking.Go(func() { _, _, errs[i] = out.Manifest(ctx, repo, fmt.Sprint("tag", i), nil) })
	}
	asking.Wait()
	return errs
}

func TestPromiseOutageCostsFewConnections(t *testing.T) {
	for name, tt := range map[string]struct {
		begin func(*outage, bool)
		most  time.Duration // until it is noticed
	}{
		"swallows what is sent":      {func(out *outage, on bool) { out.swallow.Store(on) }, 5 * time.Second},
		"accepts and never answers":  {func(out *outage, on bool) { out.hush.Store(on) }, 15 * time.Second},
		"answered until just before": {func(out *outage, on bool) { out.hush.Store(on) }, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := newOutage(t, Options{})
				if strings.HasPrefix(name, "answered") {
					out.crowd(t.Context(), 1)
					pause(t.Context(), lately)
				}
				tt.begin(out, true)
				dials, start := out.dials.Load(), time.Now()
				for _, err := range out.crowd(t.Context(), 200) {
					if e := asError(t, err); !e.Outage() || e.Answered() {
						t.Fatal(err)
					}
				}
				if n := out.dials.Load() - dials; n > atOnce || n == 0 {
					t.Errorf("%d connections to find out", n)
				}
				if took := time.Since(start); took != tt.most {
					t.Errorf("found out after %v", took)
				}
				if !out.Down() {
					t.Fatal("not down")
				}

				dials, start = out.dials.Load(), time.Now()
				for _, err := range out.crowd(t.Context(), 200) {
					if e := asError(t, err); !errors.Is(err, ErrDown) || e.RetryAfter < time.Second || e.RetryAfter > lastProbe {
						t.Fatalf("%v, again after %v", err, e.RetryAfter)
					}
				}
				if n, took := out.dials.Load()-dials, time.Since(start); n != 0 || took != 0 {
					t.Errorf("once it is known: %d connections, %v", n, took)
				}

				pause(t.Context(), 10*time.Minute)
				probed := out.probed.Load()
				tt.begin(out, false)
				start = time.Now()
				for out.Down() && time.Since(start) < time.Minute {
					pause(t.Context(), 10*time.Millisecond)
				}
				if took := time.Since(start); took > 30*time.Second {
					t.Errorf("recovery was noticed after %v", took)
				}
				synctest.Wait()
				if n := out.probed.Load() - probed; n != 1 {
					t.Errorf("%d probes have noticed it", n)
				}
				if !out.Endpoints()[0].Up {
					t.Error("back for manifests alone")
				}
				for _, err := range out.crowd(t.Context(), 200) {
					if err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// TestRecoveryIsNoticedInTime has the registry come back at each moment of the row of probes.
func TestRecoveryIsNoticedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newOutage(t, Options{})
		for i := range 300 {
			out.hush.Store(true)
			out.crowd(t.Context(), 1)
			pause(t.Context(), time.Duration(i)*337*time.Millisecond)
			out.hush.Store(false)
			start := time.Now()
			for out.Down() {
				pause(t.Context(), 100*time.Millisecond)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("noticed after %v", took)
			}
			pause(t.Context(), steady)
		}
	})
}

func TestPromiseRecoveryIsNoStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, mended := make(chan struct{}), new(atomic.Bool)
		var within atomic.Int64
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			switch {
			case !mended.Load():
				status(503)(rw, req)
			case req.URL.Path == "/v2/":
			default:
				within.Add(1)
				<-held
				serveContent(rw, req)
			}
		})
		r := w.registry(Options{}, "http://registry.test")
		for range downAt {
			r.Manifest(t.Context(), repo, "7", nil)
		}
		if pause(t.Context(), firstProbe); !r.Down() {
			t.Fatal("503 again and again, to a probe too, is somebody who is there")
		}
		mended.Store(true)
		for r.Down() {
			pause(t.Context(), 10*time.Millisecond)
		}
		var crowd sync.WaitGroup
		for i := range 100 {
			crowd.Go(func() {
				if _, _, err := r.Manifest(t.Context(), repo, fmt.Sprint("tag", i), nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := within.Load(); n != atOnce {
			t.Errorf("%d requests before the first answer", n)
		}
		held <- struct{}{}
		synctest.Wait()
		if n := within.Load(); n != 100 {
			t.Errorf("%d requests after the first answer", n)
		}
		close(held)
		crowd.Wait()
	})
}

func TestWhoLeavesWaitsAtNoDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newOutage(t, Options{})
		out.hush.Store(true)
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		start := time.Now()
		for _, err := range out.crowd(ctx, 50) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("left after %v", took)
		}
		out.hush.Store(false)
		for _, err := range out.crowd(t.Context(), 50) {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// TestWhatShutsNoDoor is about faults of somebody who is there.
func TestWhatShutsNoDoor(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"500":     status(500),
		"429":     status(429),
		"501":     status(501),
		"cut off": answer(200, layer[:5000], "Content-Type", manifestType, "Content-Length", "262144"),
		"stalled": sendAndStop(5000),
		"misled":  redirect("ftp://elsewhere.test/"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", h)
				r := w.registry(Options{StallTimeout: time.Second}, "http://registry.test")
				for range 3 * downAt {
					_, err := fetch(t.Context(), r)
					_, _, err2 := r.Manifest(t.Context(), repo, "7", nil)
					if err == nil || err2 == nil || errors.Is(err, ErrDown) || errors.Is(err2, ErrDown) {
						t.Fatalf("%v, %v", err, err2)
					}
				}
				if r.Down() {
					t.Error("down")
				}
			})
		})
	}
}

// TestTokenServerThatIsGone has a registry that is well, and its token server is not.
func TestTokenServerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		var realm atomic.Value
		realm.Store("http://auth.test/token")
		w := newWorld(t)
		auth := func(rw http.ResponseWriter, req *http.Request) {
			if gone.Load() {
				silent(rw, req)
				return
			}
			io.WriteString(rw, `{"token":"t","expires_in":3600}`)
		}
		w.serve("http://auth.test", auth)
		w.serve("http://moved.test", func(rw http.ResponseWriter, _ *http.Request) {
			io.WriteString(rw, `{"token":"t","expires_in":3600}`)
		})
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") == "" {
				challengeWith(`Bearer realm="`+realm.Load().(string)+`",service="s"`)(rw, req)
				return
			}
			serveContent(rw, req)
		})
		r := w.registry(Options{}, "http://registry.test")
		pull := func(name string) error {
			_, _, err := r.Manifest(t.Context(), name, "7", nil)
			return err
		}
		if err := pull("at/hand"); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), lately)
		gone.Store(true)
		asked := w.count("auth.test")
		var crowd sync.WaitGroup
		for i := range 100 {
			crowd.Go(func() {
				if err := pull(fmt.Sprint("new/", i)); err == nil {
					t.Error("no error")
				}
			})
		}
		crowd.Wait()
		if n := w.count("auth.test") - asked; n > atOnce {
			t.Errorf("%d token requests to find out", n)
		}
		start, asked := time.Now(), w.count("auth.test/token?")
		for i := range 100 {
			if err := pull(fmt.Sprint("more/", i)); !errors.Is(err, ErrDown) {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 0 || w.count("auth.test/token?") != asked {
			t.Errorf("once it is known: %v, %d token requests", took, w.count("auth.test/token?")-asked)
		}
		if err := pull("at/hand"); err != nil || r.Down() {
			t.Errorf("with a token at hand: %v, down: %t", err, r.Down())
		}

		realm.Store("http://moved.test/token") // whose door is not the other's
		pull("moved/0")                        // in vain, unless it asks without a token at first
		if err := pull("moved/1"); err != nil {
			t.Error(err)
		}
		realm.Store("http://auth.test/token")
		r.endpoints[0].learn(challenge{}) // as if it had been started again
		if err := pull("back/1"); err == nil {
			t.Error("no error")
		}
		gone.Store(false)
		pause(t.Context(), 30*time.Second)
		if err := pull("back/2"); err != nil {
			t.Error(err)
		}
	})
}

func TestOfflineNobodyIsDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newOutage(t, Options{})
		out.crowd(t.Context(), 1)
		body, err := out.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		out.SetOffline(true)
		if !out.Down() {
			t.Error("not down")
		}
		dials, heard := out.dials.Load(), out.heard.Load()
		for _, err := range out.crowd(t.Context(), 10) {
			if !errors.Is(err, ErrOffline) {
				t.Error(err)
			}
		}
		if _, err := fetch(t.Context(), out.Registry); !errors.Is(err, ErrOffline) {
			t.Error(err)
		}
		if n, err := io.Copy(io.Discard, body); n != int64(len(layer)) || err != nil {
			t.Errorf("under way: %d bytes, %v", n, err)
		}
		pause(t.Context(), time.Hour)
		if n, m := out.dials.Load()-dials, out.heard.Load()-heard; n != 0 || m != 0 || out.probed.Load() != 0 {
			t.Errorf("%d dials, %d requests, %d probes", n, m, out.probed.Load())
		}
		if !out.Endpoints()[0].Up {
			t.Error("what was not asked is no fault")
		}
		out.SetOffline(false)
		if err := out.crowd(t.Context(), 1)[0]; err != nil {
			t.Error(err)
		}
	})
}

func TestOfflineEndpointThatIsDownIsNotProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newOutage(t, Options{})
		out.hush.Store(true)
		out.crowd(t.Context(), 1)
		out.SetOffline(true)
		out.hush.Store(false)
		pause(t.Context(), time.Minute)
		dials, probed := out.dials.Load(), out.probed.Load()
		pause(t.Context(), time.Hour)
		if out.dials.Load() != dials || out.probed.Load() != probed {
			t.Error("probed")
		}
		out.SetOffline(false)
		pause(t.Context(), 30*time.Second)
		if out.Down() {
			t.Error("down")
		}
	})
}

// TestShutDoorOfTheTrustedHidesNoImage is about a mirror that lacks what the registry may have.
func TestShutDoorOfTheTrustedHidesNoImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", silent)
		w.serve("http://mirror.test", status(404))
		r := w.registry(Options{}, "http://registry.test", "http://mirror.test")
		for range 2 {
			_, _, err := r.Manifest(t.Context(), repo, contentDigest.String(), nil)
			if e := asError(t, err); e.Answered() {
				t.Errorf("an absence: %v", err)
			}
		}
	})
}

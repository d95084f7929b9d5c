package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// alone returns a proxy without a cache, for what needs none.
func alone() (*Proxy, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	return New(Options{Registries: []Registry{{Name: "docker.io"}}, DefaultRegistry: "docker.io", Canonical: strings.ToLower,
		Metrics: NewMetrics(nil, "test"), Log: zap.New(core)}), logs
}

func TestPanicIsAnsweredLoggedAndCounted(t *testing.T) {
	for name, test := range map[string]struct {
		panics http.HandlerFunc
		status int // 0: no whole answer
		faults int // lines of the log that tell of one
	}{
		"before the answer": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("ETag", `"x"`)
			panic("boom")
		}, 500, 1},
		"in its body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "half")
			panic("boom")
		}, 0, 1},
		"on purpose": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p, logs := alone()
			answered := make(chan struct{})
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(answered)
				p.observe(w, r, test.panics)
			}))
			defer s.Close()
			res, err := s.Client().Get(s.URL)
			var body []byte
			if err == nil {
				body, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			<-answered
			switch {
			case test.status == 0 && err == nil:
				t.Errorf("a whole answer: %d %s", res.StatusCode, body)
			case test.status == 0:
			case err != nil:
				t.Error(err)
			case res.StatusCode != test.status || !strings.Contains(string(body), `"UNKNOWN"`) || res.Header.Get("ETag") != "" ||
				res.Header.Get("Cache-Status") != localStatus || res.Header.Get("Content-Type") != "application/json":
				t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
			}
			faults := logs.FilterLevelExact(zapcore.ErrorLevel).All()
			if len(faults) != test.faults {
				t.Fatalf("%d lines of errors", len(faults))
			}
			line := logs.FilterMessage("request").All()[0].ContextMap()
			if test.faults == 0 {
				return
			}
			if stack := fmt.Sprint(faults[0].ContextMap()["stack"]); !strings.Contains(stack, "TestPanicIsAnswered") {
				t.Errorf("the stack does not lead to the panic: %s", stack)
			}
			if line["verdict"] != outcomeFailed || line["error"] != "panic: boom" {
				t.Errorf("logged as %v", line)
			}
			w := httptest.NewRecorder()
			p.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			if want := `entrepot_requests_total{kind="other",registry="none",verdict="failed"} 1`; !strings.Contains(w.Body.String(), want) {
				t.Errorf("no %s", want)
			}
		})
	}
}

func TestAnnouncedBodyThatNeverComesHoldsNothingUp(t *testing.T) {
	for _, request := range []string{
		"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			p, _ := alone()
			client, conn := net.Pipe()
			conns := make(oneListener, 1)
			conns <- conn
			s := &http.Server{Handler: p}
			go s.Serve(conns)
			start := time.Now()
			io.WriteString(client, request)
			res, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 0 || !res.Close {
				t.Errorf("%.20q: %d after %s, Connection: close is %v", request, res.StatusCode, took, res.Close)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > bodyPatience+time.Second {
				t.Errorf("%.20q: the connection was held for %s", request, took)
			}
		})
	}
}

// oneListener accepts the connections that are sent to it.
type oneListener chan net.Conn

func (l oneListener) Accept() (net.Conn, error) {
	if conn, ok := <-l; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (l oneListener) Close() error {
	close(l)
	return nil
}

func (oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// waiting is content that waits for a byte until its context ends, and must not be closed meanwhile.
type waiting struct {
	ctx     context.Context
	reading chan struct{}
	closed  bool // read and written without a lock, for the race detector to see
}

func (w *waiting) Read([]byte) (int, error) {
	close(w.reading)
	<-w.ctx.Done()
	if w.closed {
		return 0, fmt.Errorf("closed during a read")
	}
	return 0, w.ctx.Err()
}

func (w *waiting) Seek(int64, int) (int64, error) { return 0, nil }

func (w *waiting) Close() error {
	w.closed = true
	return nil
}

func TestContentIsClosedOnlyBetweenReads(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	w := &waiting{ctx: ctx, reading: make(chan struct{})}
	l := &lent{leave: leave, content: w, free: w.Close}
	read := make(chan error)
	go func() {
		_, err := l.Read(nil)
		read <- err
	}()
	<-w.reading
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	if err := <-read; err != context.Canceled {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := l.Read(nil); err != os.ErrClosed {
		t.Errorf("a read after Close: %v", err)
	}
	if _, err := l.Seek(0, io.SeekStart); err != os.ErrClosed {
		t.Errorf("a seek after Close: %v", err)
	}
}

func TestLogTakesOnlySoMuchFromAClient(t *testing.T) {
	long := strings.Repeat("x", 50_000)
	for _, path := range []string{"/v2/a/manifests/" + long, "/" + long} {
		p, logs := alone()
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("User-Agent", long)
		r.Method = long
		p.ServeHTTP(httptest.NewRecorder(), r)
		r.Method = "GET"
		p.ServeHTTP(httptest.NewRecorder(), r)
		for _, line := range logs.FilterMessage("request").All() {
			for key, value := range line.ContextMap() {
				if n := len(fmt.Sprint(value)); n > 2*maxLogged {
					t.Errorf("%d bytes of %s", n, key)
				}
			}
		}
	}
}

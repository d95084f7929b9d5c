package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gated serves one blob and holds the second half of its body back until release is called.
func gated(t *testing.T, content []byte) (url string, d digest.Digest, release func()) {
	open := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		if r.Method == http.MethodHead {
			return
		}
		w.Write(content[:len(content)/2])
		http.NewResponseController(w).Flush()
		<-open
		w.Write(content[len(content)/2:])
	}))
	release = sync.OnceFunc(func() { close(open) })
	t.Cleanup(s.Close)
	t.Cleanup(release)
	return s.URL, digest.FromBytes(content), release
}

// refused waits until the mirror takes no more connections.
func (r *running) refused(t *testing.T) {
	t.Helper()
	for {
		res, err := http.Get(r.mirror + "/v2/")
		if err != nil {
			return
		}
		res.Body.Close() // an answer that nobody reads holds its connection
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestBodiesInFlightFinishWithinGrace(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	upstream, d, release := gated(t, content)
	r := start(t, upstream, nil)
	res, err := http.Get(r.mirror + "/v2/library/a/blobs/" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, len(content)/2)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.refused(t)
	release()
	rest, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(append(first, rest...), content) {
		t.Errorf("%d bytes after the signal, %v", len(rest), err)
	}
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestBodiesAreCutOffWhenGraceIsOver(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	upstream, d, _ := gated(t, content)
	r := start(t, upstream, func(c *config.Config) { c.ShutdownGrace = config.Duration(time.Millisecond) })
	res, err := http.Get(r.mirror + "/v2/library/a/blobs/" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("half a body of %d bytes came to a clean end", len(body))
	}
}

func TestAdminListener(t *testing.T) {
	r := start(t, "http://127.0.0.1:1", nil)
	for path, want := range map[string]string{
		"/healthz":      "ok\n",
		"/readyz":       "ready\n",
		"/metrics":      `entrepot_requests_total{kind="blob",registry="docker.io",verdict="hit"} 0`,
		"/debug/pprof/": "goroutine",
		"/api/cache":    `"blobs":0`,
		"/":             "/metrics",
	} {
		if status, body := get(t, r.admin+path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.200s", path, status, body)
		}
		if status, _ := get(t, r.mirror+path); path != "/" && status != 404 {
			t.Errorf("%s on the mirror's own listener: %d", path, status)
		}
	}
	get(t, r.mirror+"/v2/unknown.example/a/manifests/x")
	_, body := get(t, r.admin+"/metrics")
	if !strings.Contains(body, `registry="none"`) || strings.Contains(body, "unknown.example") {
		t.Error("labels are not bounded")
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestAddressInUseIsAnError(t *testing.T) {
	s := httptest.NewServer(nil)
	defer s.Close()
	c := config.Default()
	c.DataDir, c.Listen = t.TempDir(), strings.TrimPrefix(s.URL, "http://")
	if err := serve(t.Context(), newSettings(c, nil, zap.NewNop()), nil, zap.NewNop()); err == nil || !strings.Contains(err.Error(), c.Listen) {
		t.Errorf("got %v", err)
	}
}

// command runs the program as a shell would.
func command(environ []string, args ...string) (out string, err error) {
	var b bytes.Buffer
	cmd := program(environ, &b, io.Discard)
	cmd.SetArgs(args)
	err = cmd.Execute()
	return b.String(), err
}

func TestConfigCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "entrepot.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("registries: {docker.io: {credentials: {username: ci, password: hunter2}}}\n")
	out, err := command([]string{"ENTREPOT_CACHE_TAG_TTL=5m", "ENTREPOT_CONFIG=" + file}, "config", "check", "--listen", ":7000")
	if err != nil || strings.Contains(out, "hunter2") || !strings.Contains(out, "username: ci") ||
		!strings.Contains(out, "tag_ttl: 5m") || !strings.Contains(out, "listen: :7000") {
		t.Errorf("%v\n%s", err, out)
	}
	write("cache:\n  tag_tll: 5m\n  max_size: lots\n")
	_, err = command(nil, "config", "check", "--config", file)
	for _, want := range []string{file + ":2:", "tag_ttl", file + ":3:", "200GiB"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

func TestCommandLineTeaches(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--help", "daemon.json"}, {"serve --help", "--upstream"}, {"config check --help", "secrets hidden"}, {"version", "entrepot "},
		{"cache --help", "stats"}, {"cache stats --help", "max_size is small"}, {"verify --help", "systemctl stop"},
	} {
		if out, err := command(nil, strings.Fields(test.args)...); err != nil || !strings.Contains(out, test.want) {
			t.Errorf("%s: %v\n%s", test.args, err, out)
		}
	}
	for _, args := range []string{"srve", "serve --nosuch", "serve extra"} {
		if _, err := command(nil, strings.Fields(args)...); err == nil {
			t.Errorf("%s is no error", args)
		}
	}
}

func TestLogFormats(t *testing.T) {
	var b bytes.Buffer
	line := func(c config.Log, write func(*zap.Logger)) string {
		b.Reset()
		log, _, stop := newLogger(c, &b)
		write(log)
		if err := stop(); err != nil {
			t.Error(err)
		}
		return b.String()
	}
	hello := func(log *zap.Logger) { log.Info("hello", zap.Int("n", 1)) }
	if got := line(config.Log{Level: "info", Format: "auto"}, hello); !strings.HasPrefix(got, `{"level":"info"`) {
		t.Error(got)
	}
	if got := line(config.Log{Level: "warn", Format: "json"}, hello); got != "" {
		t.Error(got)
	}
	if got := line(config.Log{Level: "debug", Format: "console"}, hello); strings.HasPrefix(got, "{") || !strings.Contains(got, "hello") {
		t.Error(got)
	}
}

// lineCounter counts the lines that are written to it.
type lineCounter struct{ atomic.Int64 }

func (c *lineCounter) Write(b []byte) (int, error) {
	c.Add(int64(bytes.Count(b, []byte("\n"))))
	return len(b), nil
}

func TestLogWaitsASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lineCounter
		log, _, stop := newLogger(config.Log{Level: "info", Format: "json"}, &out)
		expect := func(lines int) {
			t.Helper()
			synctest.Wait()
			if got := int(out.Load()); got != lines {
				t.Errorf("%d lines are out, want %d", got, lines)
			}
		}
		log.Info("one")
		expect(0)
		<-time.After(logDelay)
		expect(1)
		log.Info("two")
		log.Warn("three")
		expect(3)
		log.Info("four")
		expect(3)
		if err := stop(); err != nil {
			t.Error(err)
		}
		expect(4)
	})
}

func TestAdminListenerStaysUntilTheMirrorIsDown(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	upstream, d, release := gated(t, content)
	r := start(t, upstream, nil)
	res, err := http.Get(r.mirror + "/v2/library/a/blobs/" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r.stop()
	r.refused(t)
	if status, body := get(t, r.admin+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("ready while it stops: %d %s", status, body)
	}
	if status, body := get(t, r.admin+"/metrics"); status != 200 || !strings.Contains(body, "entrepot_fills_in_flight 1") {
		t.Errorf("metrics while it stops: %d %.200s", status, body)
	}
	release()
	if body, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(body, content) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	if _, err := http.Get(r.admin + "/readyz"); err == nil {
		t.Error("the admin listener outlives the program's work")
	}
}

func TestHandlersEndBeforeServingDoes(t *testing.T) {
	entered, cut, finish := make(chan struct{}), make(chan struct{}), make(chan struct{})
	finished := false // without a lock, for the race detector to see
	servers, err := listen(zap.NewNop(), []endpoint{{"mirror", "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(cut)
		<-finish
		finished = true
	}), nil}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- run(ctx, servers, time.Millisecond, func() {}, zap.NewNop()) }()
	left := make(chan struct{})
	go func() {
		defer close(left)
		if res, err := http.Get("http://" + servers[0].address); err == nil {
			res.Body.Close()
			t.Error("a handler that was cut off has answered")
		}
	}()
	<-entered
	stop()
	<-cut
	<-left // the connection is closed, and the handler still runs
	select {
	case <-done:
		t.Error("run has returned before its handler")
		close(finish)
		return
	case <-time.After(10 * time.Millisecond):
	}
	close(finish)
	if err := <-done; err != nil || !finished {
		t.Errorf("%v, finished: %v", err, finished)
	}
	w := httptest.NewRecorder()
	defer func() {
		if got := recover(); got != http.ErrAbortHandler {
			t.Errorf("a request after the end: %v", got)
		}
	}()
	servers[0].gate.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
}

func TestFaultsThatNetHTTPTellsOfAreErrors(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	l := errorLog(zap.New(core))
	for line, level := range map[string]zapcore.Level{
		"http: panic serving 192.0.2.1:1: boom\ngoroutine 1 [running]:":        zapcore.ErrorLevel,
		"http: Accept error: too many open files; retrying in 5ms":             zapcore.ErrorLevel,
		"http: TLS handshake error from 192.0.2.1:1: EOF":                      zapcore.DebugLevel,
		"http: URL query contains semicolon, which is no longer a separator\n": zapcore.DebugLevel,
	} {
		l.Print(line)
		got := logs.TakeAll()
		if len(got) != 1 || got[0].Level != level || got[0].Message != strings.TrimSpace(line) {
			t.Errorf("%q became %+v", line, got)
		}
	}
}

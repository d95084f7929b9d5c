package load

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, handler http.HandlerFunc) *Conn {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := Dial(t.Context(), server.Listener.Addr().String(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Answers of all kinds and sizes are told apart on one connection.
func TestOneAnswerAfterTheOther(t *testing.T) {
	content := strings.Repeat("0123456789", bufferSize/4)
	c := dial(t, func(w http.ResponseWriter, req *http.Request) {
		http.ServeContent(w, req, "", time.Time{}, strings.NewReader(content))
	})
	for _, r := range []struct {
		Request
		status int
		length int64
		body   string
	}{
		{Request{Path: "/"}, 200, int64(len(content)), content},
		{Request{Path: "/", Method: "HEAD"}, 200, int64(len(content)), ""},
		{Request{Path: "/", Range: "bytes=3-5"}, 206, 3, "345"},
		{Request{Path: "/", Range: "bytes=-2"}, 206, 2, "89"},
	} {
		a, err := c.Ask(r.Compile())
		if err != nil || a.Status != r.status || a.Length != r.length {
			t.Fatalf("%+v: answer %+v, %v", r.Request, a, err)
		}
		var body strings.Builder
		if err := c.Body(&body, 2); err != nil {
			t.Fatal(err)
		}
		if err := c.Body(&body, -1); err != nil || body.String() != r.body {
			t.Errorf("%+v: %d bytes of body, %v", r.Request, body.Len(), err)
		}
	}
}

// What is no whole answer is an error.
func TestRefuses(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a body of unknown length": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			io.WriteString(w, "x")
		},
		"a body that ends early": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "x")
		},
		"another status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
	} {
		if _, err := dial(t, handler).Get(Request{Path: "/"}, nil); err == nil {
			t.Errorf("%s is taken for an answer", name)
		}
	}
}

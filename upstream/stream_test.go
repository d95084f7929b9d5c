package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// tagged serves the layer with an entity tag, by the rules of If-Range.
func tagged(tag string) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("ETag", tag)
		serveLayer(rw, req)
	}
}

func TestValidatorIsAStrongEntityTag(t *testing.T) {
	for tag, want := range map[string]bool{`"a"`: true, `""`: true, `W/"a"`: false, `a`: false, `"`: false, "": false,
		`"` + strings.Repeat("a", maxValidator) + `"`: false,
		"\"a\tb\"": false, `"a b"`: false, `"é"`: false} {
		w := newWorld(t)
		w.serve("http://registry.test", answer(200, nil, "ETag", tag))
		body, err := w.registry(Options{}, "http://registry.test").OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if err != nil {
			t.Errorf("%q: %v", tag, err)
			continue
		}
		body.Close()
		if got := body.Validator; (got != "") != want || strings.Contains(body.Endpoint, " ") {
			t.Errorf("%q gave validator %q", tag, got)
		}
	}
}

func TestValidatorTellsWhetherContentChanged(t *testing.T) {
	whole := func(tag string) http.HandlerFunc { return answer(200, layer, "ETag", tag, "Content-Length", "262144") }
	part := func(tag string) http.HandlerFunc {
		return answer(206, layer[1000:], "ETag", tag, "Content-Range", "bytes 1000-262143/262144")
	}
	for _, tt := range []struct {
		name    string
		then    http.HandlerFunc
		offset  int64
		length  int64
		other   bool // the validator is another endpoint's
		ifRange string
		changed bool
	}{
		{"the same part", tagged(`"a"`), 1000, 0, false, `"a"`, false},
		{"the same part from the start", tagged(`"a"`), 0, 1000, false, `"a"`, false},
		{"changed, honest", tagged(`"b"`), 1000, 0, false, `"a"`, true},
		{"changed, shorter", answer(200, layer[:10], "ETag", `"b"`, "Content-Length", "10"), 1000, 0, false, `"a"`, true},
		{"changed, If-Range ignored", part(`"b"`), 1000, 0, false, `"a"`, true},
		{"range ignored", whole(`"a"`), 1000, 0, false, `"a"`, false},
		{"range ignored, no tag", whole(""), 1000, 0, false, `"a"`, false},
		{"no tag any more", part(""), 1000, 0, false, `"a"`, false},
		{"a weak tag", part(`W/"a"`), 1000, 0, false, `"a"`, false},
		{"the whole is asked for", tagged(`"b"`), 0, 0, false, "", false},
		{"another endpoint's", tagged(`"b"`), 1000, 0, true, "", false},
		{"a redirect by now", redirect("http://cdn.test/"), 1000, 0, false, `"a"`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			first := true
			w.serve("http://cdn.test", func(rw http.ResponseWriter, req *http.Request) {
				if got := req.Header.Get("If-Range"); got != "" {
					t.Errorf("another host is asked with If-Range %q", got)
				}
				tagged(`"b"`)(rw, req)
			})
			w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
				if first {
					first = false
					tagged(`"a"`)(rw, req)
				} else {
					tt.then(rw, req)
				}
			})
			r := w.registry(Options{}, "http://registry.test")
			body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
			if err != nil {
				t.Fatal(err)
			}
			body.Close()
			req := wanted(layerDigest, tt.offset, tt.length)
			if req.Validator = body.Validator; tt.other {
				req.Validator = "mirror.test" + strings.TrimPrefix(req.Validator, "registry.test")
			}
			body, err = r.OpenBlob(t.Context(), req)
			if tt.changed {
				if e := asError(t, err); !strings.HasSuffix(e.Error(), "the endpoint changed the content") || e.Answered() || e.Outage() {
					t.Errorf("%v, want a change", err)
				}
			} else if err != nil {
				t.Error(err)
			} else {
				got, err := io.ReadAll(body)
				if !bytes.HasPrefix(layer[tt.offset:], got) || err != nil {
					t.Errorf("%d bytes of other content, %v", len(got), err)
				}
				body.Close()
			}
			for _, h := range w.requests()[1:2] {
				if got := h.Header.Get("If-Range"); got != tt.ifRange {
					t.Errorf("%s with If-Range %q, want %q", h.URL, got, tt.ifRange)
				}
			}
			if s := r.Endpoints()[0]; !s.Up || s.Connections != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestHostsBehindARedirectGiveNoValidator is about storage hosts that serve the same content with tags of their own.
func TestHostsBehindARedirectGiveNoValidator(t *testing.T) {
	w := newWorld(t)
	var n atomic.Int32
	w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		redirect(fmt.Sprintf("http://cdn%d.test/", n.Add(1)%2))(rw, req)
	})
	w.serve("http://cdn0.test", tagged(`"mtime0-40000"`))
	w.serve("http://cdn1.test", tagged(`"mtime1-40000"`))
	r := w.registry(Options{}, "http://registry.test")
	for i := range int64(4) {
		req := wanted(layerDigest, i*1000, 1000)
		req.Validator = validator(r.endpoints[0], `"mtime0-40000"`)
		body, err := r.OpenBlob(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		body.Close()
		if body.Validator != "" {
			t.Errorf("validator %q", body.Validator)
		}
	}
}

func TestFurtherConnectionsSendNoValidator(t *testing.T) {
	w := newWorld(t)
	w.serve("http://registry.test", tagged(`"b"`))
	r := w.registry(Options{}, "http://registry.test")
	req := wanted(layerDigest, 1000, 1000)
	req.Beside, req.Validator = 1, validator(r.endpoints[0], `"a"`)
	body, err := r.OpenBlob(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if got := w.requests()[0].Header.Get("If-Range"); got != "" {
		t.Errorf("If-Range %q", got)
	}
}

func TestBytesThatNobodyWaitsForAreInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", serveLayer)
		r := w.registry(Options{Lines: []*bandwidth.Line{bandwidth.NewLine(32 << 10)}, Background: bandwidth.NewLine(1 << 10)}, "http://registry.test")
		var waiting atomic.Bool
		for _, tt := range []struct {
			name    string
			waiting func() bool
			want    time.Duration
		}{
			{"nobody knows", nil, 8 * time.Second},
			{"somebody waits from the start", func() bool { return true }, 8 * time.Second},
			{"nobody waits", func() bool { return false }, 8 * 32 * time.Second},
			// 10 KiB in 10 s; the rest waits for the limit of all within a second.
			{"somebody comes", waiting.Load, 10*time.Second + 8*time.Second},
		} {
			time.AfterFunc(10*time.Second, func() { waiting.Store(true) })
			start := time.Now()
			req := wanted(layerDigest, 0, -1)
			req.Waiting = tt.waiting
			body, err := r.OpenBlob(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, body); n != int64(len(layer)) || err != nil {
				t.Errorf("%s: %d bytes, %v", tt.name, n, err)
			}
			body.Close()
			if took := time.Since(start); took < tt.want*95/100-time.Second || took > tt.want+time.Second {
				t.Errorf("%s: %v, want %v", tt.name, took, tt.want)
			}
			waiting.Store(false)
		}
	})
}

// TestResumeAsksTheRegistryForANewSignature is about storage hosts whose URLs end before a large blob does.
func TestResumeAsksTheRegistryForANewSignature(t *testing.T) {
	w := newWorld(t)
	var signed atomic.Int32
	w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		redirect("http://cdn.test/?signature="+strings.Repeat("s", int(signed.Add(1))))(rw, req)
	})
	w.serve("http://cdn.test", func(rw http.ResponseWriter, req *http.Request) {
		switch {
		case len(req.FormValue("signature")) != int(signed.Load()):
			status(403)(rw, req) // expired
		case req.Header.Get("Range") == "":
			answer(200, layer[:5000], "Content-Length", "262144", "ETag", `"a"`)(rw, req)
		default:
			tagged(`"a"`)(rw, req)
		}
	})
	r := w.registry(Options{}, "http://registry.test")
	body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	body.Close()
	if err == nil {
		t.Fatal("not cut off")
	}
	req := wanted(layerDigest, int64(len(got)), -1)
	req.Validator = body.Validator
	if body, err = r.OpenBlob(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	rest, err := io.ReadAll(body)
	if got = append(got, rest...); err != nil || !bytes.Equal(got, layer) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := w.count("registry.test"); n != 2 {
		t.Errorf("the registry was asked %d times", n)
	}
}

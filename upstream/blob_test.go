package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

var (
	layer       = bytes.Repeat([]byte("0123456789abcdef"), 1<<14) // 256 KiB
	layerDigest = digest.FromBytes(layer)
)

// wanted asks for part of a blob.
func wanted(d digest.Digest, offset, length int64) BlobRequest {
	return BlobRequest{Repository: repo, Digest: d, Offset: offset, Length: length}
}

// serveLayer answers ranges as a storage host does.
func serveLayer(rw http.ResponseWriter, req *http.Request) {
	rw.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(rw, req, "", time.Time{}, bytes.NewReader(layer))
}

// answer writes a header, given as name and value in turn, a status and a body, and leaves the body's end to net/http.
func answer(code int, body []byte, header ...string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/octet-stream")
		for i := 0; i < len(header); i += 2 {
			rw.Header().Set(header[i], header[i+1])
		}
		rw.WriteHeader(code)
		rw.Write(body)
	}
}

func TestBlobIsReadFromItsOffset(t *testing.T) {
	total := int64(len(layer))
	for _, tt := range []struct {
		name    string
		offset  int64
		length  int64 // 0: to the end
		answer  http.HandlerFunc
		ranged  string // the Range header
		size    int64
		content []byte
		end     error // of the body, if not its clean end
	}{
		{"from the start", 0, 0, serveLayer, "", total, layer, nil},
		{"from the middle", 1000, 0, serveLayer, "bytes=1000-", total, layer[1000:], nil},
		{"the last byte", total - 1, 0, serveLayer, fmt.Sprintf("bytes=%d-", total-1), total, layer[total-1:], nil},
		{"the range is ignored", 1000, 0, answer(200, layer, "Content-Length", "262144"), "bytes=1000-", total, layer[1000:], nil},
		{"the range is ignored, no size", 1000, 0, answer(200, layer, "Transfer-Encoding", "chunked"), "bytes=1000-", -1, layer[1000:], nil},
		{"the range is ignored, nothing left", total, 0, answer(200, layer, "Content-Length", "262144"), "bytes=262144-", total, nil, nil},
		{"no size", 0, 0, answer(200, layer, "Transfer-Encoding", "chunked"), "", -1, layer, nil},
		{"the range states no size", 4, 0, answer(206, layer[4:8], "Content-Range", "bytes 4-7/*"), "bytes=4-", -1, layer[4:8], nil},
		{"identity is no encoding", 0, 0, answer(200, layer[:4], "Content-Length", "4", "Content-Encoding", "identity"), "", 4, layer[:4], nil},

		{"cut off", 0, 0, answer(200, layer[:5000], "Content-Length", "262144"), "", total, layer[:5000], io.ErrUnexpectedEOF},
		{"cut off in a range", 1000, 0, answer(206, layer[1000:1500], "Content-Range", "bytes 1000-262143/262144", "Content-Length", "261144"),
			"bytes=1000-", total, layer[1000:1500], io.ErrUnexpectedEOF},
		{"cut off before the offset", 1000, 0, answer(200, layer[:500], "Content-Length", "262144"), "bytes=1000-", total, nil, io.ErrUnexpectedEOF},
		{"a shorter part than asked for", 4, 0, answer(206, layer[4:8], "Content-Range", "bytes 4-7/262144"), "bytes=4-", total, layer[4:8], io.ErrUnexpectedEOF},
		{"a chunked part ends early", 4, 0, answer(206, layer[4:8], "Content-Range", "bytes 4-262143/262144", "Transfer-Encoding", "chunked"),
			"bytes=4-", total, layer[4:8], io.ErrUnexpectedEOF},
		{"more than the range states", 4, 0, answer(206, layer, "Content-Range", "bytes 4-7/8", "Transfer-Encoding", "chunked"),
			"bytes=4-", 8, layer[:4], nil},

		{"a closed range", 1000, 500, serveLayer, "bytes=1000-1499", total, layer[1000:1500], nil},
		{"a closed range from the start", 0, 500, serveLayer, "bytes=0-499", total, layer[:500], nil},
		{"one byte", 0, 1, serveLayer, "bytes=0-0", total, layer[:1], nil},
		{"a closed range up to the end", total - 4, 4, serveLayer, "bytes=262140-262143", total, layer[total-4:], nil},
		{"a closed range past the end", total - 4, 100, serveLayer, "bytes=262140-262239", total, layer[total-4:], nil},
		{"a closed range of unknown size", 4, 4, answer(206, layer[4:8], "Content-Range", "bytes 4-7/*"), "bytes=4-7", -1, layer[4:8], nil},
		{"a shorter part than a closed range", 4, 100, answer(206, layer[4:8], "Content-Range", "bytes 4-7/262144"),
			"bytes=4-103", total, layer[4:8], io.ErrUnexpectedEOF},
		{"a shorter part from the start", 0, 100, answer(206, layer[:8], "Content-Range", "bytes 0-7/262144"),
			"bytes=0-99", total, layer[:8], io.ErrUnexpectedEOF},
		{"a closed range cut off", 4, 100, answer(206, layer[4:8], "Content-Range", "bytes 4-103/262144", "Content-Length", "100"),
			"bytes=4-103", total, layer[4:8], io.ErrUnexpectedEOF},
		{"a longer part than a closed range", 4, 4, answer(206, layer[4:100], "Content-Range", "bytes 4-99/262144"), "bytes=4-7", total, layer[4:8], nil},
		{"a longer part of unknown size", 4, 4, answer(206, layer[4:100], "Content-Range", "bytes 4-99/*"), "bytes=4-7", -1, layer[4:8], nil},
		{"a closed range is ignored", 1000, 500, answer(200, layer, "Content-Length", "262144"), "bytes=1000-1499", total, layer[1000:], nil},
		{"a closed range from the start is ignored", 0, 500, answer(200, layer, "Content-Length", "262144"), "bytes=0-499", total, layer, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("https://registry.test", tt.answer)
			body, err := w.registry(Options{}, "https://registry.test").OpenBlob(t.Context(), wanted(layerDigest, tt.offset, tt.length))
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if body.Size != tt.size {
				t.Errorf("size %d, want %d", body.Size, tt.size)
			}
			got, err := io.ReadAll(body)
			if !bytes.Equal(got, tt.content) {
				t.Errorf("read %d bytes, want %d (or others)", len(got), len(tt.content))
			}
			if !errors.Is(err, tt.end) {
				t.Errorf("end %v, want %v", err, tt.end)
			}
			if err != nil && asError(t, err).Answered() {
				t.Errorf("%v is taken for an answer", err)
			}
			if got := w.requests()[0].Header.Get("Range"); got != tt.ranged {
				t.Errorf("Range %q, want %q", got, tt.ranged)
			}
		})
	}
}

func TestUnfitBlobIsNoAnswer(t *testing.T) {
	part := func(contentRange string) http.HandlerFunc {
		return answer(206, layer[4:8], "Content-Range", contentRange)
	}
	for _, tt := range []struct {
		name   string
		offset int64
		answer http.HandlerFunc
		err    string
	}{
		{"encoded", 0, answer(200, layer, "Content-Encoding", "gzip"), "content is encoded: gzip"},
		{"web page", 0, answer(200, layer, "Content-Type", "text/html"), "a web page came in its place"},
		{"another blob", 0, answer(200, layer, "Docker-Content-Digest", contentDigest.String()), "came in its place"},
		{"a part that was not asked for", 0, part("bytes 0-3/8"), "206 Partial Content: not a status that answers this"},
		{"a part from elsewhere", 4, part("bytes 3-6/8"), "part of a blob from 3 on, not from 4"},
		{"a part without a range", 4, part(""), "without a readable range"},
		{"a part in other units", 4, part("lines 4-7/8"), "without a readable range"},
		{"a part backwards", 4, part("bytes 4-3/8"), "without a readable range"},
		{"a part beyond the end", 4, part("bytes 4-8/8"), "without a readable range"},
		{"a part with a sign", 4, part("bytes 4-+7/8"), "without a readable range"},
		{"a part past all numbers", 4, part("bytes 4-7/9223372036854775808"), "without a readable range"},
		{"a part of other length", 4, part("bytes 4-9/20"), "part of a blob with 4 bytes"},
		{"several parts", 4, answer(206, nil, "Content-Type", "multipart/byteranges; boundary=x"), "without a readable range"},
		{"shorter than the offset", 4, answer(200, layer[:3], "Content-Length", "3"), "blob of 3 bytes has none at 4"},
		{"range beyond the end", 1 << 30, serveLayer, "416 Requested Range Not Satisfiable"},
		{"created", 0, answer(201, nil), "201 Created: not a status that answers this"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://registry.test", tt.answer)
			body, err := w.registry(Options{}, "http://registry.test").OpenBlob(t.Context(), wanted(layerDigest, tt.offset, -1))
			if e := asError(t, err); e.Answered() || body != nil || !strings.Contains(e.Error(), tt.err) {
				t.Errorf("%v (answered %t), want %s", e, e.Answered(), tt.err)
			}
		})
	}
}

// sendAndStop sends some bytes of the layer and then nothing more.
func sendAndStop(n int) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		answer(200, layer[:n], "Content-Length", "262144")(rw, req)
		http.NewResponseController(rw).Flush()
		silent(rw, req)
	}
}

func TestStalledBlobIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", sendAndStop(5000))
		body, err := w.registry(Options{StallTimeout: 20 * time.Second}, "http://registry.test").OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		start := time.Now()
		got, err := io.ReadAll(body)
		if !errors.Is(err, ErrStalled) || asError(t, err).Answered() || len(got) != 5000 || time.Since(start) != 20*time.Second {
			t.Errorf("after %v and %d bytes: %v", time.Since(start), len(got), err)
		}
		if _, again := body.Read(make([]byte, 1)); again != err {
			t.Errorf("the next read says %v", again)
		}
	})
}

func TestSlowUpstreamIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("Content-Length", "100")
			for range 100 { // far longer than any time-out in all
				pause(req.Context(), 29*time.Second)
				rw.Write([]byte("x"))
				http.NewResponseController(rw).Flush()
			}
		})
		r := w.registry(Options{HeaderTimeout: time.Minute}, "http://registry.test")
		body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if got, err := io.ReadAll(body); len(got) != 100 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestSlowReaderAndSlowLimitAreNotStalls(t *testing.T) {
	for _, tt := range []struct {
		name    string
		limiter *bandwidth.Line
		pause   time.Duration
	}{
		{"reader", nil, time.Hour},
		{"limit", bandwidth.NewLine(64), 0}, // a portion takes more than a minute
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", serveLayer)
				r := w.registry(Options{Lines: []*bandwidth.Line{tt.limiter}, StallTimeout: time.Second}, "http://registry.test")
				body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				start, n := time.Now(), 0
				for buf := make([]byte, 1<<15); err == nil; {
					var m int
					m, err = body.Read(buf)
					n += m
					pause(t.Context(), tt.pause)
				}
				if err != io.EOF || n != len(layer) || time.Since(start) < time.Hour/2 {
					t.Errorf("after %v and %d bytes: %v", time.Since(start), n, err)
				}
			})
		})
	}
}

func TestLimitIsForBlobBodiesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", manifestType)
			rw.Write(layer)
		})
		r := w.registry(Options{Lines: []*bandwidth.Line{bandwidth.NewLine(32 << 10)}}, "http://registry.test")
		timed := func(f func() error) time.Duration {
			start := time.Now()
			if err := f(); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		read := func(offset int64) func() error {
			return func() error {
				body, err := r.OpenBlob(t.Context(), wanted(layerDigest, offset, -1))
				if err != nil {
					return err
				}
				defer body.Close()
				_, err = io.Copy(io.Discard, body)
				return err
			}
		}
		if took := timed(read(0)).Round(time.Millisecond); took != 7875*time.Millisecond { // all but a burst of 4 KiB
			t.Errorf("the blob took %v", took)
		}
		if took := timed(func() error { _, _, err := r.Manifest(t.Context(), repo, "7", nil); return err }); took != 0 {
			t.Errorf("a manifest took %v", took)
		}
		// What is discarded has come over the line too, and so has the manifest, of which a second's worth is made up for.
		if took := timed(read(200 << 10)).Round(time.Millisecond); took != 9*time.Second {
			t.Errorf("the rest of the blob took %v", took)
		}
	})
}

func TestCloseWakesTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", sendAndStop(0))
		body, err := w.registry(Options{}, "http://registry.test").OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		time.AfterFunc(time.Second, func() { body.Close() })
		if _, err := body.Read(make([]byte, 1)); err == nil || err == io.EOF || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestBodyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", sendAndStop(0))
		why := errors.New("not wanted any more")
		ctx, cancel := context.WithCancelCause(t.Context())
		body, err := w.registry(Options{}, "http://registry.test").OpenBlob(ctx, wanted(layerDigest, 0, -1))
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		time.AfterFunc(time.Second, func() { cancel(why) })
		if _, err := body.Read(make([]byte, 1)); !errors.Is(err, why) {
			t.Error(err)
		}
	})
}

func TestErrorBodyOfABlobDoesNotHoldItUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			rw.WriteHeader(http.StatusNotFound)
			http.NewResponseController(rw).Flush()
			silent(rw, req)
		})
		start := time.Now()
		_, err := w.registry(Options{}, "http://registry.test").OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if took := time.Since(start); took != smallTimeout {
			t.Errorf("gave up after %v", took)
		}
		if e := asError(t, err); e.Status != http.StatusNotFound {
			t.Error(e)
		}
	})
}

func TestBlobsComeOverHTTP1AndManifestsMayNot(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var protocols []string
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		mu.Lock()
		protocols = append(protocols, req.Proto)
		mu.Unlock()
		serveContent(rw, req)
	})
	r := w.registry(Options{}, "https://registry.test")
	if _, _, err := r.Manifest(t.Context(), repo, "7", nil); err != nil {
		t.Fatal(err)
	}
	body, err := r.OpenBlob(t.Context(), wanted(contentDigest, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if want := []string{"HTTP/2.0", "HTTP/1.1"}; !cmp.Equal(want, protocols) {
		t.Errorf("protocols %q, want %q", protocols, want)
	}
}

func TestConnectionIsKeptAfterAWholeBody(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", serveLayer)
	r := w.registry(Options{}, "https://registry.test")
	for range 5 {
		body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 1, -1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
		body.Close()
	}
	if w.dials != 1 {
		t.Errorf("%d connections for 5 blobs one after the other", w.dials)
	}
}

func TestConnectionIsKeptAfterAClosedRange(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", serveLayer)
	r := w.registry(Options{}, "https://registry.test")
	for i := range int64(5) {
		body, err := r.OpenBlob(t.Context(), wanted(layerDigest, i*1000, 1000))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, body); n != 1000 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		body.Close()
	}
	if w.dials != 1 {
		t.Errorf("%d connections for 5 ranges one after the other", w.dials)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-3/4", "bytes 4-7/*", "bytes */8", "bytes 1-9223372036854775807/*", "bytes -1-2/3", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if first, last, size, ok := parseContentRange(s); ok && (first < 0 || last < first || size >= 0 && last >= size) {
			t.Errorf("%q: %d-%d/%d", s, first, last, size)
		}
	})
}

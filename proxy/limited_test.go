package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy"
)

// files is a listener whose connections note the files that net/http hands them.
type files struct {
	net.Listener
	mu    sync.Mutex
	bytes int64 // that went from files to the socket
	other int64 // that came from elsewhere
	most  int64 // of one piece
}

func (l *files) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &fileConn{c, l}, nil
}

type fileConn struct {
	net.Conn
	seen *files
}

func (c *fileConn) ReadFrom(src io.Reader) (int64, error) {
	from := c.Conn.(io.ReaderFrom) // a TCP connection's: sendfile, if src is a part of a file
	part, ok := src.(*io.LimitedReader)
	if !ok {
		return from.ReadFrom(src)
	}
	asked := part.N
	_, isFile := part.R.(*os.File)
	n, err := from.ReadFrom(src)
	c.seen.mu.Lock()
	defer c.seen.mu.Unlock()
	if isFile {
		c.seen.bytes, c.seen.most = c.seen.bytes+n, max(c.seen.most, asked)
	} else {
		c.seen.other += n
	}
	return n, err
}

// observed restarts the mirror's server with a listener that is looked at.
func (m *mirror) observed() *files {
	handler := m.server.Config.Handler
	m.server.CloseClientConnections()
	m.server.Close()
	m.server = httptest.NewUnstartedServer(handler)
	seen := &files{Listener: proxy.Listener(m.server.Config, m.server.Listener)}
	m.server.Listener = seen
	m.server.Start()
	m.url = m.server.URL
	return seen
}

func TestBlobsGoByFileWhetherLimitedOrNot(t *testing.T) {
	content := random(9 << 20)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	m.get(blobPath("a", d)).expect(t, 200, content)
	m.settled()
	for _, tt := range []struct {
		name string
		rate int64
		most int64
	}{{"unlimited", 0, 4 << 20}, {"limited", 30_000_000, 64 << 10}} {
		t.Run(tt.name, func(t *testing.T) {
			m.egress.Total().SetRate(tt.rate)
			seen := m.observed()
			m.get(blobPath("a", d)).expect(t, 200, content)
			from := 1234
			m.get(blobPath("a", d), fmt.Sprintf("Range: bytes=%d-", from)).expect(t, 206, content[from:])
			m.server.Close() // waits for the handlers; the next one listens anew
			// net/http looks at the first 512 bytes, if the header has not gone before.
			if want := int64(2*len(content) - from); seen.bytes > want || seen.bytes < want-2*512 || seen.other > 0 || seen.most > tt.most {
				t.Errorf("%d bytes of %d went by file, %d otherwise, %d at once", seen.bytes, want, seen.other, seen.most)
			}
		})
	}
}

// While blobs are held back, whatever they are read from and by whatever ranges, all that is small is answered; and when the
// limit goes, so do they, every byte as it should be.
func TestWhatIsSmallIsAnsweredWhileBlobsAreHeldBack(t *testing.T) {
	content, cold, little := random(4<<20), random(5<<20), random(64<<10)
	u := newRegistry(t)
	manifest := u.image("library/a", "1", little)
	d, other := u.blob(content, "library/a"), u.blob(cold, "library/a")
	m := newMirror(t, u, nil)
	m.get(blobPath("a", d)).expect(t, 200, content)
	m.settled()
	m.egress.SetRate(1)
	total := m.egress.Total()
	total.SetRate(64 << 10)
	if err := total.Take(context.Background(), "test", 6<<10); err != nil { // the burst
		t.Fatal(err)
	}
	var bodies []*http.Response
	for _, blob := range []struct {
		path, header string
	}{
		{blobPath("a", d), "Accept: */*"},
		{blobPath("a", d), "Range: bytes=100000-"},
		{blobPath("a", d), "Range: bytes=0-99999,2000000-3999999"},
		{blobPath("a", other), "Accept: */*"},
		{blobPath("a", other), "Range: bytes=100000-199999,1000000-2999999"},
	} {
		res := m.open(t.Context(), "GET", blob.path, blob.header)
		defer res.Body.Close()
		bodies = append(bodies, res)
	}
	for range 50 {
		m.get(manifestPath("a", "1"), acceptAll()).expectVerdict(t, "")
		m.ask("HEAD", digestPath("a", manifest), acceptAll()).expect(t, 200, nil)
		m.get(blobPath("a", digest.FromBytes(little))).expect(t, 200, little)
		m.ask("HEAD", blobPath("a", d)).expect(t, 200, nil)
	}
	if s := m.egress.Stats(); s.Waiting == 0 {
		t.Error("no blob is held back")
	}
	m.egress.SetRate(0)
	total.SetRate(0)
	for i, want := range [][]byte{content, content[100000:], nil, cold, nil} {
		if want == nil {
			continue
		}
		if err := same(bodies[i].Body, want); err != nil {
			t.Errorf("body %d: %v", i, err)
		}
	}
	expectParts(t, bodies[2], content[:100000], content[2000000:4000000])
	expectParts(t, bodies[4], cold[100000:200000], cold[1000000:3000000])
}

// expectParts compares the parts of an answer with several ranges.
func expectParts(t *testing.T, res *http.Response, want ...[]byte) {
	t.Helper()
	_, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(res.Body, params["boundary"])
	for i, w := range want {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(part); err != nil || !bytes.Equal(got, w) {
			t.Errorf("part %d: %d bytes, %v", i, len(got), err)
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("more parts: %v", err)
	}
}

// A client that leaves while it is held back frees all that it had.
func TestClientThatLeavesWhileHeldBackIsGone(t *testing.T) {
	content := random(4 << 20)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	m.get(blobPath("a", d)).expect(t, 200, content)
	m.settled()
	m.logged(1)
	m.egress.Total().SetRate(1)
	ctx, leave := context.WithCancel(t.Context())
	res := m.open(ctx, "GET", blobPath("a", d))
	leave()
	res.Body.Close()
	m.logged(1)
	if s := m.egress.Total().Stats(); s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

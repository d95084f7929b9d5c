package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestPromiseEndpointThatDiesIsReplacedInMidBlob has the first endpoint die at half of a blob: the pull goes on from the
// second, and asks it for the other half only.
func TestPromiseEndpointThatDiesIsReplacedInMidBlob(t *testing.T) {
	first, second := newRegistry(t), newRegistry(t)
	content := random(8 << 20)
	d := first.blob(content, "library/a")
	second.blob(content, "library/a")
	release := first.hold(4 << 20)
	m := newMirrorOf(t, first, second)
	res := m.open(t.Context(), "GET", blobPath("library/a", d))
	defer res.Body.Close()
	half := make([]byte, 4<<20)
	if _, err := io.ReadFull(res.Body, half); err != nil {
		t.Fatal(err)
	}
	first.fail(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	first.server.CloseClientConnections()
	release()
	rest, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(append(half, rest...), content) {
		t.Fatalf("%d bytes after the half, %v", len(rest), err)
	}
	m.settled()
	if got := second.ranges(); len(got) != 1 || !strings.HasPrefix(got[0], "bytes=4") {
		t.Errorf("the second endpoint was asked for %v", got)
	}
	m.get(blobPath("library/a", d)).expectVerdict(t, "hit")
	metrics := m.exposition()
	for _, want := range []string{m.endpointMetric("up", first, 0), m.endpointMetric("up", second, 1)} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	if m.logs.FilterMessageSnippet("endpoint").Len() == 0 {
		t.Error("the log says nothing of it")
	}
}

// TestPromiseEndpointThatSendsWrongBytesIsSetAside has the first endpoint send wrong bytes: the client's pull fails once
// and succeeds the next time, from the second.
func TestPromiseEndpointThatSendsWrongBytesIsSetAside(t *testing.T) {
	first, second := newRegistry(t), newRegistry(t)
	content := random(1 << 20)
	d := first.blob(content, "library/a")
	second.blob(content, "library/a")
	wrong := bytes.Clone(content)
	wrong[500_000]++
	first.blobs["library/a@"+d.String()] = wrong
	m := newMirrorOf(t, first, second)
	if a := m.get(blobPath("library/a", d)); a.err == nil || len(a.body) >= len(content) {
		t.Fatalf("%d bytes of wrong content, %v", len(a.body), a.err)
	}
	m.settled()
	m.get(blobPath("library/a", d)).expect(t, 200, content)
	if n := first.count("GET /v2/library/a/blobs/"); n != 1 {
		t.Errorf("the endpoint that lied was asked %d times", n)
	}
	metrics := m.exposition()
	for _, want := range []string{m.endpointMetric("set_aside", first, 1), m.endpointMetric("wrong_blobs_total", first, 1),
		m.endpointMetric("set_aside", second, 0), m.endpointMetric("up", first, 1)} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	if m.logs.FilterMessageSnippet("wrong bytes").Len() == 0 {
		t.Error("the log says nothing of it")
	}
}

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   float64
	}{
		"none":           {nil, 0},
		"one":            {[]float64{3}, 3},
		"odd, unsorted":  {[]float64{9, 1, 2}, 2},
		"even, unsorted": {[]float64{4, 1, 2, 100}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("%s: median(%v) = %v, want %v", name, c.values, got, c.want)
		}
	}
}

func TestTableComparesWithDirect(t *testing.T) {
	table := table{Workload: "cold", About: "something", Rows: []row{
		{System: "direct", Measurements: []measurement{{Seconds: 4, UpstreamRatio: 1, Connections: 1}}},
		{System: "entrepot", Measurements: []measurement{
			{Seconds: 1, UpstreamRatio: 1, Connections: 6, usage: usage{CPUSeconds: 0.5, PeakBytes: 40 << 20}},
			{Seconds: 3, UpstreamRatio: 1.02, Connections: 7, usage: usage{CPUSeconds: 0.7, PeakBytes: 60 << 20}},
			{Seconds: 2, UpstreamRatio: 1.01, Connections: 8, usage: usage{CPUSeconds: 0.6, PeakBytes: 50 << 20}},
		}},
	}}
	want := `
cold: something
    system  seconds   min   max  of direct  upstream/size  connections  CPU seconds  peak MiB
    direct     4.00  4.00  4.00       1.00          1.000            1            -         -
  entrepot     2.00  1.00  3.00       0.50          1.010            7         0.60        50
`
	var got bytes.Buffer
	if err := table.print(&got); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", got.String(), want)
	}
	table.Rows = table.Rows[1:]
	got.Reset()
	if err := table.print(&got); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.String(), "3.00          -") {
		t.Errorf("without direct there is nothing to compare with, but the table is\n%s", got.String())
	}
}

func TestPick(t *testing.T) {
	for names, want := range map[string]string{
		"":                    "direct, entrepot, entrepot-1",
		"entrepot-1,direct":   "direct, entrepot-1",
		"entrepot":            "entrepot",
		"entrepot,other":      "",
		"entrepot,entrepot":   "",
		"entrepot,":           "",
		"direct,,entrepot":    "",
		"direct entrepot":     "",
		"entrepot-1,entrepot": "entrepot, entrepot-1",
	} {
		picked, err := pick(systems, names)
		if got := list(picked); got != want || (err != nil) != (want == "") {
			t.Errorf("pick(%q) = %s, %v; want %s", names, got, err, want)
		}
	}
}

// What crosses is counted, whether it is capped or not.
func TestRoadCountsWhatComesBack(t *testing.T) {
	const size = 3*step + 1
	body := strings.Repeat("x", size)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, body)
	}))
	defer server.Close()
	for _, perConnection := range []int64{0, 100 * step} {
		r, err := openRoad(server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		r.perConnection.Store(perConnection)
		transport := &http.Transport{}
		for range 2 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url(), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != body {
				t.Errorf("cap %d: got %d bytes, %v, of %d", perConnection, len(got), err, len(body))
			}
		}
		transport.CloseIdleConnections()
		if err := r.close(); err != nil {
			t.Error(err)
		}
		const headers = 1 << 10 // at most
		if got := r.crossed(); got.connections != 1 || got.bytes < 2*size || got.bytes > 2*(size+headers) {
			t.Errorf("cap %d: counted %+v for two bodies of %d bytes on one connection", perConnection, got, size)
		}
	}
}

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func TestTable(t *testing.T) {
	cold := table{Workload: "cold", About: "something", Columns: []metric{duration, peak, upstreamShare}, Rows: []row{
		{System: "direct", Measurements: []values{{duration: 4, upstreamShare: 1}}},
		{System: "entrepot", Measurements: []values{
			{duration: 1, upstreamShare: 1, peak: 40.25},
			{duration: 3, upstreamShare: 1.25, peak: 60},
			{duration: 2, upstreamShare: 1.0625, peak: 50.04},
		}},
		{System: "squid", Failures: []string{"it hung up"}},
	}}
	cold.judge([]goal{
		most(duration, 0.5).of("direct"),
		least(duration, 3).of("direct"),
		most(peak, 50),
		most(duration, 0.25).of("direct").or(2),
		most(duration, 1).of("nginx"),
		most(duration, 1).of("nginx").or(3),
	})
	want := `
cold: something
    system  seconds  min  max  peak MiB  upstream/asked
    direct        4    4    4         -               1
  entrepot        2    1    3      50.0            1.06
     squid        -    -    -         -               -
  squid FAILED: it hung up
  goal, entrepot: seconds ≤ 0.5 × direct: 0.500 × (2 of 4), reached
  goal, entrepot: seconds ≥ 3 × direct: 0.500 × (2 of 4), NOT reached
  goal, entrepot: peak MiB ≤ 50: 50.0, NOT reached
  goal, entrepot: seconds ≤ 0.25 × direct, or 2: 0.500 × (2 of 4), reached
  goal, entrepot: seconds ≤ 1 × nginx: not measured
  goal, entrepot: seconds ≤ 1 × nginx, or 3: 2, reached
`
	var got bytes.Buffer
	if err := cold.print(&got); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", got.String(), want)
	}
	got.Reset()
	r := report{Tables: []table{cold}}
	if err := r.failures(); err == nil || err.Error() != "1 measurements failed" {
		t.Errorf("the failures are %v", err)
	}
	if err := r.summary(&got); err != nil {
		t.Fatal(err)
	}
	if want := "\n3 of 6 goals reached, 2 not, 1 not measured\n"; got.String() != want {
		t.Errorf("the summary is %q, want %q", got.String(), want)
	}
}

func TestPick(t *testing.T) {
	all := []system{{name: "direct"}, {name: "entrepot"}, {name: "entrepot-1"}}
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
		picked, err := pick(all, names)
		if got := list(picked); got != want || (err != nil) != (want == "") {
			t.Errorf("pick(%q) = %s, %v; want %s", names, got, err, want)
		}
	}
}

// Whoever writes a workload may misspell what its goals and columns refer to: it would be "not measured" for ever.
func TestWorkloadsAreConsistent(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range workloads {
		if seen[w.name] {
			t.Errorf("there are two workloads %q", w.name)
		}
		seen[w.name] = true
		for _, name := range w.systems {
			if !slices.ContainsFunc(systems, func(y system) bool { return y.name == name }) {
				t.Errorf("%s: there is no system %q", w.name, name)
			}
		}
		for _, g := range w.goals {
			if !slices.Contains(w.columns, g.Metric) {
				t.Errorf("%s: goal %v is about what is not shown", w.name, g)
			}
			for _, name := range []string{g.System, g.Of} {
				if name != "" && !slices.Contains(w.systems, name) {
					t.Errorf("%s: goal %v is about %q, which is not measured", w.name, g, name)
				}
			}
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
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.address(), nil)
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

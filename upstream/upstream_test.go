package upstream

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewRefusesWhatIsNoEndpoint(t *testing.T) {
	for _, tt := range []struct{ name, endpoint, err string }{
		{"another protocol", "ftp://registry.test", "is not an http or https URL"},
		{"no host", "https:///v2", "names no host"},
		{"credentials", "https://ci:hunter2@registry.test", "endpoint registry.test holds credentials"},
		{"a query", "https://registry.test?a=hunter2", "holds a query or a fragment"},
		{"a fragment", "https://registry.test#hunter2", "holds a query or a fragment"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := url.Parse(tt.endpoint)
			if err != nil {
				t.Fatal(err)
			}
			_, err = New(Options{Name: "docker.io", Endpoints: []Endpoint{{URL: u}}})
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want %s", err, tt.err)
			}
		})
	}
	one := &url.URL{Scheme: "https", Host: "registry.test", Path: "/hub"}
	again := &url.URL{Scheme: "https", Host: "Registry.test:443", Path: "/hub/"}
	for name, endpoints := range map[string][]Endpoint{"none": nil, "nil": {{}}, "twice": {{URL: one}, {URL: again}}} {
		if _, err := New(Options{Endpoints: endpoints}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNamesOfEndpointsAreUnique(t *testing.T) {
	var o Options
	for _, raw := range []string{"https://a.test", "http://a.test", "http://a.test/hub/", "https://b.test/hub", "https://a.test:8443"} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		o.Endpoints = append(o.Endpoints, Endpoint{URL: u})
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names []string
	for _, s := range r.Endpoints() {
		names = append(names, s.Name)
	}
	want := []string{"https://a.test", "http://a.test", "a.test/hub", "b.test/hub", "a.test:8443"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestUnreadableProxySettingIsNotQuoted(t *testing.T) {
	u, err := hideProxy(nil, &url.Error{Op: "parse", URL: "http://ci:hunter2@proxy", Err: http.ErrSchemeMismatch})
	if u != nil || err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v, %v", u, err)
	}
}

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/credential"
)

func TestLoginComesFromWhereTheConfigurationSays(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	write("docker-credential-own", "#!/bin/sh\nread server\necho '{\"Username\": \"helped\", \"Secret\": \"'$server'\"}'\n")
	for _, step := range []struct {
		given          config.Login
		name, password string
	}{
		{config.Login{Username: "u", Password: config.NewSecret("p")}, "u", "p"},
		{config.Login{Username: "f", PasswordFile: write("password", "from file\n")}, "f", "from file"},
		{config.Login{DockerConfig: write("config.json", `{"auths": {"a.example": {"username": "d", "password": "docker"}}}`)}, "d", "docker"},
		{config.Login{Helper: "own"}, "helped", "a.example"},
		{config.Login{Username: "e", Exec: []string{"echo", "printed"}}, "e", "printed"},
		{config.Login{Exec: []string{"echo", `{"username": "j", "password": "json"}`}}, "j", "json"},
	} {
		l := source("a.example", step.given)
		if got, err := l.Get(t.Context()); err != nil || got.Username != step.name || got.Password != step.password {
			t.Errorf("%+v: %s %s, %v", step.given, got.Username, got.Password, err)
		}
		if worker, ok := l.(credential.Worker); ok {
			if err := worker.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestLoginsThatStayKeepTheirSources(t *testing.T) {
	a := config.Login{Username: "a", Exec: []string{"echo", "a"}}
	b := config.Login{Username: "b", Exec: []string{"echo", "b"}}
	before := logins{host: "a.example"}.of([]config.Login{a, b})
	after := before.of([]config.Login{{Username: "c", Exec: a.Exec}, b, a, a})
	if len(after.sources) != 4 || after.sources[1] != before.sources[1] || after.sources[2] != before.sources[0] {
		t.Errorf("%v", after.sources)
	}
	if after.sources[0] == before.sources[0] || after.sources[3] == before.sources[0] {
		t.Error("one source is two logins")
	}
	if none := after.of(nil); len(none.sources) != 0 {
		t.Errorf("%v", none.sources)
	}
}

// exposing is a configuration of docker.io that everybody may have all of, by these credentials.
func exposing(c *config.Config, all ...config.Login) *config.Config {
	r := c.Registries["docker.io"]
	r.Expose, r.Credentials = []config.Glob{"**"}, all
	c.Registries["docker.io"] = r
	return c
}

// TestHangupChangesHowManyCredentialsThereAre has a registry that lets two users in, and nobody else.
func TestHangupChangesHowManyCredentialsThereAre(t *testing.T) {
	var asked atomic.Value
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if password != "of "+user {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		asked.Store(user)
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
	}))
	defer upstream.Close()
	r := start(t, upstream.URL, func(c *config.Config) { exposing(c) })
	one := config.Login{Username: "one", Password: config.NewSecret("of one")}
	two := config.Login{Username: "two", Exec: []string{"echo", "of two"}}
	bad := config.Login{Username: "bad", Password: config.NewSecret("wrong")}
	for n, step := range []struct {
		given []config.Login
		user  string // who is asked as; "": nobody gets anything
	}{{nil, ""}, {[]config.Login{one}, "one"}, {[]config.Login{bad, two}, "two"}, {[]config.Login{two, one, bad}, "two"}, {[]config.Login{one}, "one"}, {nil, ""}} {
		asked.Store("")
		if line := r.reload(func() (*config.Config, error) {
			return exposing(loaded(t), step.given...), nil
		}); !strings.Contains(line, "was read again") {
			t.Error(line)
		}
		if line := <-r.said; !strings.Contains(line, "restart") || strings.Contains(line, "credentials") { // the tests' own keys are others
			t.Error(line)
		}
		status, body := get(t, fmt.Sprintf("%s/v2/library/app/manifests/%d", r.mirror, n))
		if (status == http.StatusOK) != (step.user != "") || asked.Load() != step.user {
			t.Errorf("step %d: %d %s as %q", n, status, body, asked.Load())
		}
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

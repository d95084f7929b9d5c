package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const secret = "hunter2"

// programs puts shell scripts into PATH, before all else.
func programs(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// check compares what a source gives with what it should: a login, or an error with a reason in it and without a secret.
func check(t *testing.T, s Source, want Login, reason string) {
	t.Helper()
	defer s.(Worker).Close()
	got, err := s.Get(t.Context())
	switch {
	case got != want:
		t.Errorf("%q %q %q, %v", got.Username, got.Password, got.IdentityToken, err)
	case (err == nil) != (reason == ""), err != nil && !strings.Contains(err.Error(), reason):
		t.Errorf("error %v, want %q", err, reason)
	case err != nil && strings.Contains(err.Error(), secret):
		t.Errorf("a secret is in %v", err)
	}
}

func TestLoginsHideTheirSecrets(t *testing.T) {
	l := Login{Username: "ci", Password: secret, IdentityToken: secret}
	core, logs := observer.New(zap.InfoLevel)
	zap.New(core).Info("a", zap.Any("any", l), zap.Object("object", l), zap.Stringer("stringer", l), zap.Reflect("reflect", l))
	encoded, err := json.Marshal(map[string]any{"l": l, "p": &l, "logged": logs.All()[0].ContextMap()})
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %v %v", l, l, l, l, l, l, l, &l, struct{ L Login }{l}, []Login{l})
	printed += string(encoded) + fmt.Sprintf("%v %+v %#v %d", Static(l), Static(l), Static(l), Static(l)) + fmt.Sprint(logs.All()[0].ContextMap())
	if strings.Contains(printed, secret) || !strings.Contains(printed, "ci") || strings.Contains(printed, fmt.Sprintf("%x", secret)) {
		t.Error(printed)
	}
	if got := (Login{}).String(); got != "anonymous" {
		t.Errorf("nobody is %q", got)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	for _, tt := range []struct{ text, password, reason string }{
		{secret, secret, ""},
		{secret + "\n", secret, ""},
		{secret + "\r\n", secret, ""},
		{" with spaces ", " with spaces ", ""},
		{"", "", "empty"},
		{"\n", "", "empty"},
		{secret + "\nand more\n", "", "several lines"},
		{strings.Repeat(secret, 10000), "", "larger than"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		want := Login{}
		if tt.password != "" {
			want = Login{Username: "ci", Password: tt.password}
		}
		check(t, File("ci", path), want, tt.reason)
	}
	check(t, File("ci", path+"-missing"), Login{}, "no such file")
}

func TestFileThatIsEmptiedAndFilledAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	core, logs := observer.New(zap.InfoLevel)
	s := File("ci", path).(Worker)
	defer s.Close()
	s.LogTo(zap.New(core))
	for _, tt := range []struct{ text, password string }{{"one", "one"}, {"", "one"}, {"two", "two"}} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := s.Get(t.Context()); err != nil || l.Password != tt.password {
			t.Errorf("%q: %q, %v", tt.text, l.Password, err)
		}
	}
	if logs.Len() != 2 || !strings.Contains(fmt.Sprint(logs.All()[0].ContextMap()["error"]), path+": empty") {
		t.Errorf("logged %v", logs.All())
	}
}

func TestHelper(t *testing.T) {
	t.Setenv("ENTREPOT_REGISTRIES_X", secret)
	programs(t, map[string]string{
		"docker-credential-echo": `[ "$1" = get ] && read -r server
[ -z "$ENTREPOT_REGISTRIES_X" ] && echo "{\"ServerURL\":\"x\",\"Username\":\"AWS\",\"Secret\":\"at $server\"}"`,
		"docker-credential-token":  `echo '{"Username":"<token>","Secret":"` + secret + `"}'`,
		"docker-credential-none":   `echo 'credentials not found in native keychain'; exit 1`,
		"docker-credential-fails":  `echo 'denied: password=` + secret + ` ` + strings.Repeat("k3Y", 10) + `' >&2; echo more; exit 3`,
		"docker-credential-says":   `echo 'no session, log in first'; exit 1`,
		"docker-credential-blank":  `echo '{"Username":"AWS","Secret":""}'`,
		"docker-credential-text":   `echo ` + secret,
		"docker-credential-chatty": `exec cat /dev/zero`,
	})
	check(t, Helper("echo", "ghcr.io", 0), Login{Username: "AWS", Password: "at ghcr.io"}, "")
	check(t, Helper("echo", "registry-1.docker.io", time.Hour), Login{Username: "AWS", Password: "at https://index.docker.io/v1/"}, "")
	check(t, Helper("token", "ghcr.io", 0), Login{IdentityToken: secret}, "")
	check(t, Helper("none", "ghcr.io", 0), Login{}, "docker-credential-none ghcr.io: no credentials for this registry")
	check(t, Helper("fails", "ghcr.io", 0), Login{}, "docker-credential-fails: exit status 3: denied: password=[hidden] [hidden]")
	check(t, Helper("says", "ghcr.io", 0), Login{}, "exit status 1: no session, log in first")
	check(t, Helper("blank", "ghcr.io", 0), Login{}, "its Secret is no password: empty")
	check(t, Helper("text", "ghcr.io", 0), Login{}, "not the JSON document of a credential helper")
	check(t, Helper("chatty", "ghcr.io", 0), Login{}, errTooMuch.Error())
	check(t, Helper("missing", "ghcr.io", 0), Login{}, "executable file not found")
	check(t, Helper("../echo", "ghcr.io", 0), Login{}, "not the name of a program")
}

func TestExec(t *testing.T) {
	later, before := time.Now().Add(time.Hour).Format(time.RFC3339), time.Now().Add(-time.Hour).Format(time.RFC3339)
	dir := programs(t, map[string]string{
		"plain":   `echo "$1"; echo 'a warning' >&2`,
		"json":    `echo '{"username":"AWS","password":"` + secret + `","expires_at":"` + later + `"}'`,
		"expired": `echo '{"password":"` + secret + `","expires_at":"` + before + `"}'`,
		"when":    `echo '{"password":"` + secret + `","expires_at":"` + secret + `"}'`,
		"bad":     `echo '{"password":["` + secret + `"]}'`,
		"lines":   `echo ` + secret + `; echo ` + secret,
		"fails":   `echo ` + secret + `; echo "can not use ` + secret + `" >&2; exit 7`,
		"empty":   ``,
		"garbage": `head -c 1000 /dev/urandom; echo; printf '\001'`,
		"huge":    `exec head -c 1000000000 /dev/zero`,
		// It ignores that nobody listens to it any more.
		"deaf": `trap '' PIPE TERM; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 2>/dev/null; done`,
		// What it leaves running holds its pipes.
		"daemon": `sleep 5 & echo ` + secret,
	})
	ci := Login{Username: "ci", Password: secret}
	check(t, Exec([]string{"plain", secret}, "ci", time.Hour), ci, "")
	check(t, Exec([]string{dir + "/plain", secret + " ; exit 1"}, "ci", 0), Login{Username: "ci", Password: secret + " ; exit 1"}, "")
	check(t, Exec([]string{"json"}, "ci", 0), Login{Username: "AWS", Password: secret}, "")
	check(t, Exec([]string{"expired"}, "ci", time.Hour), Login{}, "expired at")
	check(t, Exec([]string{"when"}, "ci", 0), Login{}, "expires_at is not a time")
	check(t, Exec([]string{"bad"}, "ci", 0), Login{}, "not a JSON document")
	check(t, Exec([]string{"lines"}, "ci", 0), Login{}, "several lines")
	check(t, Exec([]string{"fails"}, "ci", 0), Login{}, "exec fails: exit status 7: can not use [hidden]")
	check(t, Exec([]string{"empty"}, "ci", 0), Login{}, "empty")
	check(t, Exec([]string{"garbage"}, "ci", 0), Login{}, "not a password")
	check(t, Exec([]string{"huge"}, "ci", 0), Login{}, errTooMuch.Error())
	check(t, Exec([]string{"deaf"}, "ci", 0), Login{}, errTooMuch.Error())
	check(t, Exec([]string{"daemon"}, "ci", 0), ci, "")
	check(t, Exec(nil, "ci", 0), Login{}, "no program")
}

func TestStatedEndComesBeforeTheLifetime(t *testing.T) {
	since := time.Now()
	p := program{username: "ci", lifetime: 12 * time.Hour}
	f, err := p.read(`{"password":"x","expires_at":"`+since.Add(time.Hour).Format(time.RFC3339)+`"}`, since)
	if err != nil || f.endAt.Sub(since) > time.Hour || f.renewAt.Sub(since) > 50*time.Minute || f.renewAt.Sub(since) < 49*time.Minute {
		t.Errorf("renewed after %v, ends after %v, %v", f.renewAt.Sub(since), f.endAt.Sub(since), err)
	}
}

func TestHangingProgramEndsWithAllItHasStarted(t *testing.T) {
	dir := programs(t, map[string]string{"hang": `exec 3>"$1"; sleep 600 & echo begun >&3; wait`})
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := run(ctx, "", "hang", fifo)
		ended <- err
	}()
	f, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, len("begun\n"))); err != nil {
		t.Fatal(err)
	}
	cancel(errSlow)
	if err := <-ended; !errors.Is(err, errSlow) {
		t.Error(err)
	}
	if _, err := io.ReadAll(f); err != nil { // to its end: nobody who could write is left
		t.Error(err)
	}
}

func TestDocker(t *testing.T) {
	programs(t, map[string]string{
		"docker-credential-some": `read -r server
case "$server" in
ghcr.io|https://index.docker.io/v1/) echo "{\"Username\":\"helped\",\"Secret\":\"$server\"}";;
*) echo "credentials not found in native keychain"; exit 1;;
esac`,
		"docker-credential-broken": `echo out of order >&2; exit 1`,
	})
	auth := base64.StdEncoding.EncodeToString([]byte("ci:" + secret))
	ci := Login{Username: "ci", Password: secret}
	for _, tt := range []struct {
		name, config, registry string
		want                   Login
		reason                 string
	}{
		{"auths", `{"auths":{"ghcr.io":{"auth":"` + auth + `"}}}`, "ghcr.io", ci, ""},
		{"with a port", `{"auths":{"ghcr.io:444":{"auth":"` + auth + `"}}}`, "GHCR.io:444", ci, ""},
		{"old spelling", `{"auths":{"https://ghcr.io/v1/":{"auth":"` + auth + `"}}}`, "ghcr.io", ci, ""},
		{"Docker Hub's key", `{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth + `"}}}`, "docker.io", ci, ""},
		{"Docker Hub of Kubernetes", `{"auths":{"docker.io":{"username":"ci","password":"` + secret + `"}}}`, "registry-1.docker.io", ci, ""},
		{"identity token", `{"auths":{"x.azurecr.io":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("0000:")) + `","identitytoken":"` + secret + `"}}}`,
			"x.azurecr.io", Login{Username: "0000", IdentityToken: secret}, ""},
		{"a part of a registry", `{"auths":{"ghcr.io/corp":{"auth":"` + auth + `"}}}`, "ghcr.io", Login{}, "no credentials for ghcr.io: docker login ghcr.io"},
		{"no entry", `{"auths":{"ghcr.io":{"auth":"` + auth + `"}}}`, "quay.io", Login{}, "no credentials for quay.io"},
		{"empty entry", `{"auths":{"ghcr.io":{}}}`, "ghcr.io", Login{}, "no credentials for ghcr.io"},
		{"helper", `{"auths":{"ghcr.io":{"auth":"` + auth + `"}},"credHelpers":{"ghcr.io":"some"},"credsStore":"broken"}`, "ghcr.io",
			Login{Username: "helped", Password: "ghcr.io"}, ""},
		{"store", `{"auths":{"https://index.docker.io/v1/":{}},"credsStore":"some"}`, "docker.io",
			Login{Username: "helped", Password: "https://index.docker.io/v1/"}, ""},
		{"store without it", `{"auths":{"quay.io":{"auth":"` + auth + `"}},"credsStore":"some"}`, "quay.io", ci, ""},
		{"store without it, nor the file", `{"credsStore":"some"}`, "quay.io", Login{}, "no credentials for quay.io"},
		{"broken store", `{"auths":{"quay.io":{"auth":"` + auth + `"}},"credsStore":"broken"}`, "quay.io", Login{}, "out of order"},
		{"cut short", `{"auths":{"ghcr.io":{"auth":"` + auth, "ghcr.io", Login{}, "not a JSON document"},
		{"empty", ``, "ghcr.io", Login{}, "not a JSON document"},
		{"auth without a colon", `{"auths":{"ghcr.io":{"auth":"` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"}}}`, "ghcr.io", Login{}, "an auth is not"},
		{"auth that is no base64", `{"auths":{"ghcr.io":{"auth":"` + secret + `:"}}}`, "ghcr.io", Login{}, "an auth is not"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
			check(t, Docker(path, tt.registry), tt.want, tt.reason)
		})
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"ghcr.io":{"auth":"Y2k6aHVudGVyMg==","identitytoken":"x"}}}`))
	f.Add([]byte(`{"auths":{"https://GHCR.io/v2/":{"username":"a"}},"credHelpers":{}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		var doc struct{ CredHelpers, CredsStore any }
		if json.Unmarshal(content, &doc) == nil && (doc.CredHelpers != nil || doc.CredsStore != nil) {
			return // it would run programs
		}
		got, err := dockerConfig{registry: "ghcr.io"}.find(t.Context(), content)
		if (err == nil) == (got.login == Login{}) {
			t.Errorf("%v, %v", got.login, err)
		}
	})
}

func TestHarmless(t *testing.T) {
	for said, want := range map[string]string{
		"Unable to locate credentials. You can configure credentials by running \"aws configure\".\nmore": "Unable to locate credentials. You can configure credentials by running \"aws configure\".",
		`token: "abc" refused`:                  `token: [hidden] refused`,
		"Authorization: Bearer abc":             "Authorization: Bearer [hidden]",
		"GET https://u:p@x.test/a?sig=1 failed": "GET https://[hidden]@x.test/a?[hidden] failed",
		"open /var/lib/tool/cache-2/file2":      "open /var/lib/tool/cache-2/file2",
		"with\x1b[31m colour":                   "with [31m colour",
		"got AKIAIOSFODNN7EXAMPLEKEY":           "got [hidden]",
		"":                                      "",
	} {
		if got := harmless(said); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := harmless(strings.Repeat("ä ", 500)); len(got) > maxReason+len("…") {
		t.Errorf("%d bytes", len(got))
	}
}

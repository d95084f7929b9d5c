package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/config"
)

// rates are the rates in force, by their limits.
func rates(l *limits) map[string]int64 {
	all := map[string]int64{
		"upstream": l.upstream.Rate(), "background": l.background.Rate(), "clients": l.clients.Total().Rate(), "per_client": l.clients.Stats().Rate,
	}
	for name, line := range l.registries {
		all[limitOf(name)] = line.Rate()
	}
	return all
}

func TestLimitsFollowTheirPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is midnight, Saturday, 2000-01-01 in UTC
		c := loaded(t, "ENTREPOT_BANDWIDTH_TIME_ZONE=UTC", "ENTREPOT_BANDWIDTH_UPSTREAM=sat 08:00-18:00 1MB/s, else 2MB/s",
			"ENTREPOT_BANDWIDTH_PER_CLIENT=3B/s", "ENTREPOT_REGISTRIES_DOCKER_IO_BANDWIDTH=4B/s")
		l := newLimits(c)
		defer l.close()
		expect := func(when string, want map[string]int64) {
			t.Helper()
			synctest.Wait()
			for name := range rates(l) {
				want[name] += 0
			}
			if diff := cmp.Diff(want, rates(l)); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		expect("at the start", map[string]int64{"upstream": 2e6, "per_client": 3, "registries.docker.io.bandwidth": 4})
		<-time.After(8*time.Hour - time.Second)
		expect("just before eight", map[string]int64{"upstream": 2e6, "per_client": 3, "registries.docker.io.bandwidth": 4})
		<-time.After(time.Minute)
		expect("after eight", map[string]int64{"upstream": 1e6, "per_client": 3, "registries.docker.io.bandwidth": 4})

		if err := l.SetLimits(map[string]string{"upstream": "5B/s", "clients": "08:00-09:00 6B/s, else 7B/s"}); err != nil {
			t.Fatal(err)
		}
		if got := rates(l); got["upstream"] != 5 || got["clients"] != 6 {
			t.Errorf("when they are set: %v", got)
		}
		<-time.After(time.Hour)
		expect("after nine", map[string]int64{"upstream": 5, "clients": 7, "per_client": 3, "registries.docker.io.bandwidth": 4})
		if got := l.Limits(); got["upstream"] != "5B/s" || got["clients"] != "08:00-09:00 6B/s, else 7B/s" || got["background"] != "unlimited" {
			t.Errorf("%v", got)
		}

		l.obey(c)
		expect("read again", map[string]int64{"upstream": 1e6, "per_client": 3, "registries.docker.io.bandwidth": 4})
		<-time.After(9 * time.Hour)
		expect("after six", map[string]int64{"upstream": 2e6, "per_client": 3, "registries.docker.io.bandwidth": 4})
		l.obey(config.Default())
		expect("nothing configured", map[string]int64{})
	})
}

func TestLimitsThatCanNotBeSetChangeNothing(t *testing.T) {
	l := newLimits(config.Default())
	defer l.close()
	before := l.Limits()
	for name, want := range map[string]string{
		"downstream": `"downstream" is no limit; allowed: background, clients, per_client, registries.docker.io.bandwidth, upstream`,
		"background": `background: "fast" is not a rate; allowed: bits as in 200Mbit/s, bytes as in 20MB/s or 20MiB/s, or unlimited`,
	} {
		err := l.SetLimits(map[string]string{name: "fast", "upstream": "1MB/s"})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := l.Limits(); !maps.Equal(before, after) || l.upstream.Rate() != 0 {
		t.Errorf("%v", after)
	}
}

func TestPolicyIsWhatTheConfigurationSays(t *testing.T) {
	started := loaded(t, "ENTREPOT_REGISTRIES=ghcr.io,quay.io", "ENTREPOT_REGISTRIES_GHCR_IO_CREDENTIALS_USERNAME=u", "ENTREPOT_REGISTRIES_GHCR_IO_CREDENTIALS_PASSWORD=p")
	now := loaded(t, "ENTREPOT_REGISTRIES=ghcr.io,quay.io", "ENTREPOT_REGISTRIES_GHCR_IO_EXPOSE=corp/**", "ENTREPOT_REGISTRIES_QUAY_IO_AUTHORIZATION=client",
		"ENTREPOT_REGISTRIES_QUAY_IO_CREDENTIALS_USERNAME=u", "ENTREPOT_REGISTRIES_QUAY_IO_CREDENTIALS_PASSWORD=p", "ENTREPOT_ACCESS_ALLOW_CLIENTS=10.0.0.0/8")
	now.Access.Users = map[string]config.User{"alice": {Pull: []config.Pattern{"ghcr.io/corp/*"}}}
	p := policy(started, now, nil)
	ghcr, quay := p.Registries["ghcr.io"], p.Registries["quay.io"]
	switch {
	case !p.Anonymous || len(p.Networks) != 1 || p.Networks[0].String() != "10.0.0.0/8":
		t.Errorf("%+v", p)
	case !p.Users["alice"]("ghcr.io", "corp/a") || p.Users["alice"]("quay.io", "corp/a"):
		t.Error("alice may have something else")
	case ghcr.Credentials || !quay.Credentials:
		t.Error("it does not go by the credentials that are used")
	case !ghcr.Exposed("corp/a") || ghcr.Exposed("a") || quay.Exposed("corp/a"):
		t.Error("something else is exposed")
	case ghcr.Client || !quay.Client:
		t.Error("another registry decides for itself")
	}
	if names := slices.Sorted(maps.Keys(p.Registries)); strings.Join(names, " ") != "docker.io ghcr.io quay.io" {
		t.Errorf("%v", names)
	}
	if now.Access.Anonymous = "deny"; policy(started, now, nil).Anonymous {
		t.Error("the anonymous are let in")
	}
}

// TestPromiseHangupChangesTransfersUnderWay has a transfer begin under limits by which it would take days.
func TestPromiseHangupChangesTransfersUnderWay(t *testing.T) {
	for _, limit := range []string{"upstream", "clients", "per_client"} {
		t.Run(limit, func(t *testing.T) {
			content := bytes.Repeat([]byte("0123456789"), 100_000)
			upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
			}))
			defer upstream.Close()
			slow := loaded(t, "ENTREPOT_BANDWIDTH_"+strings.ToUpper(limit)+"=1B/s")
			r := start(t, upstream.URL, func(c *config.Config) { c.Bandwidth = slow.Bandwidth })
			body := make(chan error)
			go func() {
				res, err := http.Get(r.mirror + "/v2/library/a/blobs/" + digest.FromBytes(content).String())
				if err == nil {
					got, errRead := io.ReadAll(res.Body)
					res.Body.Close()
					if err = errRead; !bytes.Equal(got, content) {
						err = errors.Join(err, fmt.Errorf("%d bytes", len(got)))
					}
				}
				body <- err
			}()
			for held := fmt.Sprintf("entrepot_bandwidth_waiting{limit=%q} 1\n", limit); ; {
				if _, metrics := get(t, r.admin+"/metrics"); strings.Contains(metrics, held) {
					break
				}
				select {
				case err := <-body:
					t.Fatalf("it is over before the limit is lifted: %v", err)
				default:
				}
			}
			r.reload(func() (*config.Config, error) { return loaded(t), nil })
			if err := <-body; err != nil {
				t.Error(err)
			}
			r.stop()
			if err := <-r.done; err != nil {
				t.Error(err)
			}
		})
	}
}

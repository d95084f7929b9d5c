package cache

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/index"
)

func TestAVerdictIsAskedForOnceARepository(t *testing.T) {
	c := newCourt(t)
	c.expect("manifests/1", "", "", "manifests/1 as ")
	c.expect("manifests/2", "", "", "")
	c.expect("blobs/"+digest.FromString("x").String(), "", "", "")
	c.expect("tags/list", "", "", "tags/list as ")
	c.pass(publicFor - time.Second)
	c.expect("manifests/3", "", "", "")
	c.pass(time.Second)
	c.expect("manifests/3", "", "", "manifests/3 as ")
}

func TestWhatTurnsPrivateIsAskedForAgain(t *testing.T) {
	c := newCourt(t)
	c.expect("manifests/1", "", "", "manifests/1 as ")
	c.j.says(401)
	c.expect("manifests/1", "", "", "")
	c.pass(publicFor)
	c.expect("manifests/1", "", "401", "manifests/1 as ")
	c.expect("manifests/2", "", "401", "")
	c.close() // and it stays so
	c.open()
	c.j.says(503)
	c.expect("manifests/1", "", "unavailable", "manifests/1 as ")
	c.j.says(403)
	c.expect("manifests/1", "", "403", "manifests/1 as ")
	c.j.says(-1)
	c.pass(privateFor)
	c.expect("manifests/1", "", "403", "manifests/1 as ") // what is known holds
	c.j.says(0)
	c.expect("manifests/1", "", "", "manifests/1 as ")
}

func TestPublicHoldsOverAnOutage(t *testing.T) {
	for _, status := range []int{-1, 429, 503} {
		c := newCourt(t)
		c.expect("manifests/1", "", "", "manifests/1 as ")
		c.close()
		c.open()
		c.j.says(status)
		c.expect("manifests/1", "", "", "") // known from the disk
		c.pass(publicFor)
		c.expect("manifests/1", "", "", "manifests/1 as ")
		c.expect("manifests/1", "", "", "") // not again at once
		c.pass(heldFor)
		c.expect("manifests/1", "", "", "manifests/1 as ")
		c.expect("tags/list", "", "unavailable", "tags/list as ")
		c.pass(heldFor)
		c.j.says(401)
		c.expect("manifests/1", "", "401", "manifests/1 as ")
		c.j.says(status)
		c.expect("manifests/1", "", "401", "")
	}
}

func TestAClockThatIsSetBackMakesNothingEternal(t *testing.T) {
	c := newCourt(t)
	c.expect("manifests/1", "", "", "manifests/1 as ")
	c.pass(-time.Minute)
	c.expect("manifests/1", "", "", "manifests/1 as ")
}

func TestWhatIsNotThereSpeaksOfNothingElse(t *testing.T) {
	c := newCourt(t)
	c.j.absent["manifests/gone"] = true
	c.expect("manifests/gone", "", "404", "manifests/gone as ")
	c.expect("manifests/gone", "", "404", "")
	c.expect("manifests/1", "", "", "manifests/1 as ")
	c.expect("manifests/gone", "", "", "") // the cache's to tell
	c.pass(publicFor)
	c.expect("manifests/gone", "", "404", "manifests/gone as ")
	c.expect("manifests/1", "", "", "manifests/1 as ")
}

// TestADeletedTagTellsByItsDigest asks for a tag that upstream has deleted, of a repository that it shows.
func TestADeletedTagTellsByItsDigest(t *testing.T) {
	c := newCourt(t)
	d := digest.FromString("manifest")
	rec := index.Tag{Manifest: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 8}, Checked: c.now()}
	if err := c.index.SetTag(corpApp, "1", rec); err != nil {
		t.Fatal(err)
	}
	c.j.absent["manifests/1"] = true
	c.expect("manifests/1", "", "", "manifests/1 as , manifests/"+d.String()+" as ")
}

func TestWhatAClientPresentsOpensToItAlone(t *testing.T) {
	c := newCourt(t)
	c.expect("manifests/1", "Bearer a", "", "manifests/1 as Bearer a")
	c.expect("manifests/2", "Bearer a", "", "")
	c.j.says(401)
	c.expect("manifests/1", "Bearer b", "401", "manifests/1 as Bearer b")
	c.expect("manifests/1", "Bearer b", "401", "")
	c.expect("manifests/1", "", "401", "manifests/1 as ")
	c.expect("manifests/1", "Basic Yjpi", "401", "manifests/1 as Basic Yjpi")
	c.pass(absentFor)
	c.j.says(0)
	c.expect("manifests/1", "Bearer b", "", "manifests/1 as Bearer b")
	c.expect("manifests/1", "", "401", "")
	c.j.says(503)
	c.expect("manifests/1", "Bearer c", "unavailable", "manifests/1 as Bearer c")
	c.pass(presentedFor)
	c.expect("manifests/1", "Bearer a", "unavailable", "manifests/1 as Bearer a") // it may have been revoked
	for key := range c.admissions.known {
		if text := fmt.Sprintf("%#v", key); strings.Contains(text, "Bearer") {
			t.Errorf("kept as %s", text)
		}
	}
}

func jwt(payload string) string {
	return "Bearer e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2lnbmF0dXJl"
}

func TestAVerdictLastsAsLongAsItsToken(t *testing.T) {
	c := newCourt(t)
	token := jwt(fmt.Sprintf(`{"exp":%d}`, c.now().Add(100*time.Second).Unix()))
	c.expect("manifests/1", token, "", "manifests/1 as "+token)
	c.pass(98 * time.Second)
	c.expect("manifests/1", token, "", "")
	c.pass(2 * time.Second)
	c.j.says(401)
	c.expect("manifests/1", token, "401", "manifests/1 as "+token)
}

func TestEndOfToken(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for authorization, want := range map[string]time.Duration{
		jwt(`{"exp":1700000100}`):               100 * time.Second,
		jwt(`{"exp":1700000100.5}`):             100 * time.Second,
		jwt(`{"exp":17000000000}`):              maxPresented,
		jwt(`{"exp":1699999999}`):               0,
		jwt(`{"exp":-1}`):                       presentedFor,
		jwt(`{"exp":1e300}`):                    presentedFor,
		jwt(`{"exp":"1700000100"}`):             presentedFor,
		jwt(`{}`):                               presentedFor,
		jwt(`[]`):                               presentedFor,
		"bearer e30.eyJleHAiOjE3MDAwMDAxMDB9.x": 100 * time.Second,
		"Bearer e30.eyJleHAiOjE3MDAwMDAxMDB9":   presentedFor,
		"Basic e30.eyJleHAiOjE3MDAwMDAxMDB9.x":  presentedFor,
		"Bearer opaque":                         presentedFor,
		"Bearer a.%%%.c":                        presentedFor,
		"Bearer":                                presentedFor,
	} {
		if got := lifeOf(authorization, now); got != want {
			t.Errorf("%s: %v, want %v", authorization, got, want)
		}
	}
}

func FuzzEndOfToken(f *testing.F) {
	f.Add(jwt(`{"exp":1700000100}`))
	f.Add("Bearer a.b.c")
	now := time.Unix(1_700_000_000, 0)
	f.Fuzz(func(t *testing.T, authorization string) {
		if life := lifeOf(authorization, now); life < 0 || life > maxPresented {
			t.Errorf("%v", life)
		}
	})
}

// TestAHundredAskersOneQuestion has them come while the answer is on its way, each for something else.
func TestAHundredAskersOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		c.j.hold = make(chan struct{})
		var askers sync.WaitGroup
		for i := range 100 {
			askers.Go(func() {
				if err := c.Admit(t.Context(), corpApp, fmt.Sprint("manifests/", i), ""); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(c.j.hold)
		askers.Wait()
		if asked := c.j.takeAsked(); strings.Count(asked, "manifests/") != 1 {
			t.Errorf("%q", asked)
		}
	})
}

// TestOneAskersAbsenceIsNotAnothers has two come while the answer to the first is on its way.
func TestOneAskersAbsenceIsNotAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		c.j.absent["manifests/gone"] = true
		c.j.hold = make(chan struct{})
		var askers sync.WaitGroup
		askers.Go(func() {
			if err := c.Admit(t.Context(), corpApp, "manifests/gone", ""); !isAbsent(err) {
				t.Error(err)
			}
		})
		synctest.Wait()
		askers.Go(func() {
			if err := c.Admit(t.Context(), corpApp, "manifests/1", ""); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		close(c.j.hold)
		askers.Wait()
		if asked := c.j.takeAsked(); asked != "manifests/gone as , manifests/1 as " {
			t.Errorf("%q", asked)
		}
	})
}

// TestPublicHoldsOverARateLimitForADay has an upstream that is asked too much, as anybody can have it.
func TestPublicHoldsOverARateLimitForADay(t *testing.T) {
	c := newCourt(t)
	c.expect("manifests/1", "", "", "manifests/1 as ")
	c.j.says(429)
	c.pass(publicFor)
	c.expect("manifests/1", "", "", "manifests/1 as ")
	c.pass(throttledFor)
	c.expect("manifests/1", "", "unavailable", "manifests/1 as ")
}

// TestASlowVerdictHoldsUpNobodyForLong has an upstream that takes a minute, and then says that what was public is private.
func TestASlowVerdictHoldsUpNobodyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCourt(t)
		c.expect("manifests/1", "", "", "manifests/1 as ")
		<-time.After(publicFor)
		c.j.says(401)
		c.j.hold = make(chan struct{})
		began := time.Now()
		c.expect("manifests/1", "", "", "manifests/1 as ")
		if waited := time.Since(began); waited != heldPatience {
			t.Errorf("waited for %v", waited)
		}
		c.expect("manifests/1", "", "", "") // at once
		if waited := time.Since(began); waited != heldPatience {
			t.Errorf("waited for %v", waited)
		}
		close(c.j.hold)
		synctest.Wait()
		c.expect("manifests/1", "", "401", "")
	})
}

// TestAHeldVerdictGivesWayToANewerOne holds one that upstream has taken back meanwhile.
func TestAHeldVerdictGivesWayToANewerOne(t *testing.T) {
	a, key, at := newAdmissions(), admissionKey{repo: corpApp, what: contentPart}, time.Unix(1_700_000_000, 0)
	old := admission{checked: at, until: at.Add(publicFor)}
	a.put(key, old)
	a.hold(key, old, at.Add(2*publicFor))
	if is, _ := a.get(key); !is.until.Equal(at.Add(2 * publicFor)) {
		t.Errorf("%+v was not held", is)
	}
	for _, newer := range []admission{
		{err: errors.New("private"), checked: at, until: at.Add(privateFor)},
		{checked: at.Add(time.Minute), until: at.Add(time.Hour)},
	} {
		a.put(key, newer)
		a.hold(key, old, at.Add(2*publicFor))
		if is, _ := a.get(key); is != newer {
			t.Errorf("%+v, want %+v", is, newer)
		}
	}
}

func TestAdmissionsAreBounded(t *testing.T) {
	a := newAdmissions()
	for i := range 3 * maxAdmissions {
		a.put(admissionKey{repo: Repository{Registry: "docker.io", Name: fmt.Sprint(i)}}, admission{})
	}
	if n := len(a.known); n > maxAdmissions || n < maxAdmissions*7/8 {
		t.Errorf("%d verdicts", n)
	}
}

// TestWhatIsShownIsWhatIsKnown: a front answers everything with something of its own; that is no word on who may have the content.
func TestWhatIsShownIsWhatIsKnown(t *testing.T) {
	c := newCourt(t)
	d := digest.FromString("layer")
	if err := c.index.Confirm(corpApp, d, index.Member{MediaType: blobType, Size: 1000}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{5, 999} {
		c.j.size = size
		c.expect("blobs/"+d.String(), "", "unavailable", "blobs/"+d.String()+" as ")
	}
	c.j.size = 1000
	c.expect("blobs/"+d.String(), "", "", "blobs/"+d.String()+" as ")
}

// TestPublicDoesNotHoldOverAQuestionThatFails has a repository that turned private, and a client ask for what upstream has no word on
// but on how it is asked.
func TestPublicDoesNotHoldOverAQuestionThatFails(t *testing.T) {
	c := newCourt(t)
	c.expect("manifests/1", "", "", "manifests/1 as ")
	c.pass(publicFor)
	c.j.says(400)
	c.expect("manifests/odd", "", "unavailable", "manifests/odd as ")
	c.j.says(401)
	c.expect("manifests/1", "", "401", "manifests/1 as ")
}

// TestOneLegalTroubleSpeaksOfNothingElse has upstream withhold one image of a public repository, which a client asks for.
func TestOneLegalTroubleSpeaksOfNothingElse(t *testing.T) {
	c := newCourt(t)
	c.j.says(451)
	c.expect("manifests/withheld", "", "451", "manifests/withheld as ")
	c.j.says(0)
	c.expect("manifests/1", "", "", "manifests/1 as ")
}

// TestWhatWasEntrustedStaysSo has a registry asked with credentials, and then, after a restart, without.
func TestWhatWasEntrustedStaysSo(t *testing.T) {
	c := newCourt(t)
	if c.Entrusted("docker.io") {
		t.Error("from the start")
	}
	c.Entrust("docker.io")
	c.close()
	c.open()
	if !c.Entrusted("docker.io") || c.Entrusted("ghcr.io") {
		t.Error("it is forgotten, or taken for another")
	}
	at := c.now()
	for range 2 {
		at = at.Add(maxRestOfIndex)
		if err := c.index.Sweep(t.Context(), at, func(digest.Digest) bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
	c.close()
	c.open()
	if !c.Entrusted("docker.io") {
		t.Error("it is swept away")
	}
}

// maxRestOfIndex is longer than anything of upstream's is remembered that is not of content.
const maxRestOfIndex = 365 * 24 * time.Hour

// TestWhatIsEntrustedToATemporaryIndexIsRecordedLater has the index not be open, and what it knows meanwhile may not fit when it is.
func TestWhatIsEntrustedToATemporaryIndexIsRecordedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, newShelf(), Options{})
		r.close()
		back := hideIndex(t, r.opts.DataDir)
		c, end := tended(t, r.opts)
		defer end()
		c.Entrust("docker.io")
		if c.entrusted.known["docker.io"] || !c.Entrusted("docker.io") {
			t.Error("it is taken for recorded, or not known")
		}
		back()
		<-time.After(time.Minute)
		synctest.Wait()
		if c.index.Temporary() || !c.entrusted.known["docker.io"] || !c.index.Entrusted("docker.io") {
			t.Error("it is not recorded")
		}
	})
}

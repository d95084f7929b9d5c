package cache

import (
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// clue is what is known of a manifest that a client may ask for soon.
type clue struct {
	platform platform // that it is for, if an index that came lately says so
	isNew    bool     // it came from upstream, and what it names was not read ahead yet
}

type clueKey struct {
	repo   Repository
	digest digest.Digest
}

// maxClues is how many clues are remembered at most: those of a hundred indexes, a few hundred kilobytes. Who asks for an
// index asks for one of its images within the same second.
const maxClues = 2000

// clues remember what was put in lately. The zero value knows of nothing.
type clues struct {
	young, old map[clueKey]clue // young is filled up, and then takes old's place
}

func (c *clues) put(at clueKey, is clue) {
	if is == (clue{}) {
		return
	}
	if len(c.young) >= maxClues/2 {
		c.young, c.old = nil, c.young
	}
	if c.young == nil {
		c.young = make(map[clueKey]clue)
	}
	c.young[at] = is
}

// take forgets and returns a clue, which is zero if there is none.
func (c *clues) take(at clueKey) clue {
	for _, all := range []map[clueKey]clue{c.young, c.old} {
		if is, ok := all[at]; ok {
			delete(all, at)
			return is
		}
	}
	return clue{}
}

// platform is what an image is made for, each in one spelling. The zero value is none.
type platform struct{ os, architecture, variant string }

// maxPlatform is how long the names of a platform are together, at most: they are foreign bytes, and remembered.
const maxPlatform = 64

// platformOf is zero for what is no platform that anything runs on, such as that of attestations.
func platformOf(p *ocispec.Platform) platform {
	if p == nil || p.OS == "" || p.OS == "unknown" {
		return platform{}
	}
	is := platform{p.OS, p.Architecture, p.Variant}
	switch is {
	case platform{p.OS, "amd64", "v1"}, platform{p.OS, "arm64", "v8"}:
		is.variant = ""
	case platform{p.OS, "arm", ""}:
		is.variant = "v7"
	}
	return is
}

// ofMachine is the platform of images for a machine, as Go names it: those that are not for Windows are for Linux, which is
// what runs them on any other system.
func ofMachine(os, architecture string) platform {
	if os != "windows" {
		os = "linux"
	}
	return platformOf(&ocispec.Platform{OS: os, Architecture: architecture})
}

const (
	// lately is from how many requests is learnt what platforms clients are of: enough that no single one hides the others, few
	// enough that a machine which pulled once is soon forgotten.
	lately = 8

	// maxPlatforms is for how many of them an index is followed.
	maxPlatforms = 3
)

// recent remembers the platforms of the images of indexes that clients asked for lately. The zero value knows of none.
type recent struct{ asked []platform } // the latest first

// add takes down what platform a client asked for, unless that is none.
func (r *recent) add(p platform) {
	if p != (platform{}) {
		r.asked = slices.Insert(r.asked, 0, p)
		r.asked = r.asked[:min(len(r.asked), lately)]
	}
}

// among returns the images of an index that clients are likely to ask for, one a platform. As long as nothing is known of
// clients, these are taken to be of the fallback.
func (r *recent) among(images []ocispec.Descriptor, fallback platform) (likely []ocispec.Descriptor) {
	asked := r.asked
	if len(asked) == 0 {
		asked = []platform{fallback}
	}
	var seen []platform
	for _, p := range asked {
		if slices.Contains(seen, p) || len(seen) == maxPlatforms {
			continue
		}
		seen = append(seen, p)
		for _, image := range images {
			if platformOf(image.Platform) == p {
				likely = append(likely, image)
				break
			}
		}
	}
	return likely
}

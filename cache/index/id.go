package index

import (
	"strings"
	"unique"

	"github.com/opencontainers/go-digest"
)

// tagID names the record of a tag.
type tagID struct {
	repo Repository
	tag  string
}

func (i tagID) key() []byte  { return tagKey(i.repo, i.tag) }
func (i tagID) owned() tagID { return tagID{i.repo.owned(), strings.Clone(i.tag)} }
func (i tagID) size() int    { return i.repo.size() + len(i.tag) }

// memberID names the record of a digest's belonging to a repository.
type memberID struct {
	repo Repository
	d    digest.Digest
}

func (i memberID) key() []byte     { return memberKey(i.repo, i.d) }
func (i memberID) owned() memberID { return memberID{i.repo.owned(), ownedDigest(i.d)} }
func (i memberID) size() int       { return i.repo.size() + len(i.d) }

// shownID names the record of a digest's having been seen in a registry.
type shownID struct {
	registry string
	d        digest.Digest
}

func (i shownID) key() []byte    { return shownKey(i.registry, i.d) }
func (i shownID) owned() shownID { return shownID{interned(i.registry), ownedDigest(i.d)} }
func (i shownID) size() int      { return len(i.registry) + len(i.d) }

func (r Repository) owned() Repository { return Repository{interned(r.Registry), interned(r.Name)} }
func (r Repository) size() int         { return len(r.Registry) + len(r.Name) }

// ownedDigest is a copy: a request's digest is a part of a longer string.
func ownedDigest(d digest.Digest) digest.Digest { return digest.Digest(strings.Clone(string(d))) }

// interned is a copy that all share who have the same: many records have one repository, and nearly all one of a few media
// types.
func interned(s string) string { return unique.Make(s).Value() }

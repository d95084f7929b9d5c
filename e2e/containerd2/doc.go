// Package containerd2 holds no code: the module that it is in fixes the version of containerd 2 and of ctr that the
// tests of e2e build, for want of a Debian package.
//
// It is a module apart because containerd asks for newer versions of what the registry is built from as well: together,
// each would be tested with libraries that its makers did not choose.
package containerd2

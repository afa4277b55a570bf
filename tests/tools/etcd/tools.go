//go:build tools

// Package tools names the programs that the tests are run against, so that go.mod pins them.
package tools

import _ "go.etcd.io/etcd/server/v3"

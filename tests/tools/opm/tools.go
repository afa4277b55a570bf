//go:build tools

// Package tools names the program that benches are compared with, so that go.mod pins it.
package tools

import _ "github.com/operator-framework/operator-registry/cmd/opm"

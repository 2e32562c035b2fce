module multipick.dev/h2spec

go 1.24.0

require (
	github.com/fatih/color v1.18.0 // indirect
	github.com/spf13/cobra v1.9.1 // indirect
	github.com/summerwind/h2spec v2.2.1+incompatible
	golang.org/x/net v0.49.0 // indirect
)

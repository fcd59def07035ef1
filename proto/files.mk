PROTO_SRC := proto/frame.c proto/wire.c proto/rpc.c proto/client.c proto/pbjson.c proto/reporter.c proto/reporter_line.c proto/units.c proto/manifest.c proto/manifest_file.c proto/jobspec.c proto/jobspec_fields.c proto/jobspec_check.c proto/jobspec_json.c proto/model_config.c proto/model_params.c
PROTO_TESTS := tests/unit/proto/test_reporter.c

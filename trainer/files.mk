TRAINER_SRC :=
TRAINER_SRC += trainer/mesh.c
TRAINER_SRC += trainer/comm_self.c
TRAINER_SRC += trainer/comm_gloo.cc
TRAINER_TESTS :=
TRAINER_TESTS += tests/unit/trainer/test_mesh.c
TRAINER_TESTS += tests/unit/trainer/test_comm.c

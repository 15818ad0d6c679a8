# The libraries this project stands on, found by pkg-config. The versions are Debian 12's.
find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

pkg_check_modules(libuv REQUIRED IMPORTED_TARGET libuv>=1.44) # the daemon's loop
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing>=2.3) # the dropper's ring
pkg_check_modules(libcap REQUIRED IMPORTED_TARGET libcap>=2.66) # dropping privileges
pkg_check_modules(inih REQUIRED IMPORTED_TARGET inih>=55) # the daemon's configuration file
pkg_check_modules(json-c REQUIRED IMPORTED_TARGET json-c>=0.16) # droppablectl --json

if(BUILD_TESTING)
    pkg_check_modules(libseccomp IMPORTED_TARGET libseccomp>=2.5) # the tests of the unit's filter
    pkg_check_modules(check IMPORTED_TARGET check>=0.15)
endif()

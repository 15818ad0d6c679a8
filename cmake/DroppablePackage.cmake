# Debian packages, one per component: `./run package` builds them. What Debian's policy wants of the files themselves (compressed
# pages, a changelog, a copyright in each) is done to the staged tree by debian/stage.cmake.
set(DROPPABLE_MAINTAINER "The droppable authors <droppable@packages.invalid>" CACHE STRING "Who answers for the packages: NAME <ADDRESS>")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME droppable)
set(CPACK_PACKAGE_CONTACT "${DROPPABLE_MAINTAINER}")
set(CPACK_PACKAGE_VENDOR droppable)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # each has one of its own
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_STRIP_FILES ON)
# The prefix is /usr for all that looks at it, and the tree is staged elsewhere.
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX "${CMAKE_INSTALL_PREFIX}")
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian/stage.cmake)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL daemon library development tools preload)

set(CPACK_DEBIAN_DAEMON_PACKAGE_NAME droppabled)
set(CPACK_DEBIAN_DAEMON_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_DAEMON_DESCRIPTION
    "service that owns droppable memory
It takes memory back from caches when the machine, or a control group, runs
short, before the kernel has to kill a process. Programs use it through
libdroppable, or unchanged with libdroppable-preload."
)
set(CPACK_DEBIAN_DAEMON_PACKAGE_DEPENDS "init-system-helpers (>= 1.51), procps, systemd | systemd-standalone-sysusers | systemd-sysusers")
set(CPACK_DEBIAN_DAEMON_PACKAGE_RECOMMENDS droppable-tools)
set(CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_EXTRA
    ${CMAKE_CURRENT_LIST_DIR}/debian/postinst ${CMAKE_CURRENT_LIST_DIR}/debian/prerm ${CMAKE_CURRENT_LIST_DIR}/debian/postrm
)

set(library libdroppable${PROJECT_VERSION_MAJOR})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME ${library})
set(CPACK_DEBIAN_LIBRARY_DESCRIPTION
    "droppable memory for programs
Regions of memory that the service droppabled may take back, and that then
read as zeros; pins without system calls, and word of what was lost."
)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_RECOMMENDS droppabled)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/debian/triggers)

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libdroppable-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION
    "droppable memory for programs, to build with
The header, the link, pkg-config's and CMake's files, and the manual pages of
libdroppable."
)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${library} (= ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME droppable-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_TOOLS_DESCRIPTION
    "command that looks at droppabled, and tells it what to do
It shows who has droppable memory, what was dropped and why, sets limits, and
runs a program with a service of its own."
)
set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS droppabled)

set(CPACK_DEBIAN_PRELOAD_PACKAGE_NAME libdroppable-preload)
set(CPACK_DEBIAN_PRELOAD_DESCRIPTION
    "droppable memory for unchanged programs
Programs that call mmap(MAP_DROPPABLE) get the memory of droppabled on kernels
before 6.11, which have none of their own."
)
set(CPACK_DEBIAN_PRELOAD_PACKAGE_RECOMMENDS droppabled)
set(CPACK_DEBIAN_PRELOAD_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/debian/triggers)

include(CPack)

from serai_gateway.server.run import main

main()
